"""fzgw end to end, in network namespaces, against WireGuard clients that are not ours."""
