"""The operator: turns FederatedJob resources into server and client pods.

It shares `fedjob.api` and `fedjob.config` with the runtime, and nothing else. There must never be an `__init__.py` in the
folder `operator/` itself: it would shadow the standard library's module of that name.
"""
