"""Decisions.  PURE: observed state and a moment in, a plan out."""
