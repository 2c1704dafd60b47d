"""What only the hub's replicas do, besides reconciling: hearing the jobs' servers."""
