"""Shards on processes of this machine or the machines of a cluster; scans that bring their worker down."""
