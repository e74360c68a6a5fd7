"""What a tenant's process cannot do, and how it is made so.

``sandbox`` chooses the mechanism and prepares a start; ``confine`` is what runs in the new process
before PocketBase does; ``rules`` says what Landlock allows, ``syscalls`` and ``filter`` what
seccomp refuses; ``limits`` and ``cgroups`` bound what it uses; ``uids`` and ``belongings`` give it
a user of its own.
"""
