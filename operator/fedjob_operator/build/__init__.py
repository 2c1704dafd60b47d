"""Kubernetes objects, one module per kind of child.  PURE"""
