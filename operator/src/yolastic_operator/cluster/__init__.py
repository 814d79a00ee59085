"""Clusters: Kubernetes, this host, and a fake."""
