"""From the cluster, Prometheus and the workers to one Observation."""
