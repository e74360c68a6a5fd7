"""The node's file gateway: tenants' uploaded files and backups, kept in the cluster's S3.

PocketBase speaks S3 to a listener on loopback; each tenant has a key pair of its own that opens
nothing but its own prefix. ``names``, ``requests``, ``deletions``, ``documents`` and ``quota`` are
cores, ``signatures`` judges and makes signatures, ``bucket`` and ``gateway`` are the shells,
``tenant_files`` is one tenant's part, ``collection`` removes what was deleted long enough ago,
``adoption`` takes over the files of a tenant that kept them on the disk.
"""
