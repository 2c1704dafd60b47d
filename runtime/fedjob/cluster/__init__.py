"""The commands that speak to a cluster. `connection` alone imports kubernetes, and nothing outside this room imports that."""
