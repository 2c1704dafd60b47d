"""The `fedjob` command."""
