"""HTTP only: routes, request parsing, one module a response dialect."""
