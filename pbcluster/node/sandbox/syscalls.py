"""The system calls that a tenant's process is refused, by their numbers on each machine.

Pure. Everything that is not named is allowed, up to the last number known when this was written:
what the kernel learnt later answers ENOSYS, as an older kernel would. Sources: the kernel's
``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

#: ``fchmodat2``, the same number everywhere.
LAST_KNOWN = 452

#: Name → numbers on x86-64 and aarch64; None: that machine has no such call.
REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    # Other programs and processes.
    "fork": (57, None),
    "vfork": (58, None),
    "execveat": (322, 281),
    "memfd_create": (319, 279),  # would be executable although no path leads to it
    "memfd_secret": (447, 447),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setpgid": (109, 154),  # would leave the group that is killed after its end
    "setsid": (112, 157),
    # Other users and rights.
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "capset": (126, 91),
    "personality": (135, 92),
    # Files in ways that Landlock does not see.
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # Mounts and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # Ways around a filter of system calls, and large parts of the kernel nobody here needs.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "modify_ldt": (154, None),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "lookup_dcookie": (212, 18),
    "landlock_create_ruleset": (444, 444),
    # Talk between processes that no path or port stands for.
    "socketpair": (53, 199),
    "sendmmsg": (307, 269),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # The machine's own affairs.
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, None),
    "ioperm": (173, None),
    "ioprio_set": (251, 30),
}


@attrs.frozen(kw_only=True)
class Machine:
    """Numbers of one kind of machine.

    :ivar name: as ``os.uname().machine`` says. :ivar audit: ``AUDIT_ARCH_…`` of linux/audit.h.
    :ivar x32: whether bit 30 of a number means another set of calls.
    """

    name: str
    audit: int
    x32: bool
    refused: tuple[int, ...]
    clone: int
    clone3: int
    socket: int
    prctl: int
    prlimit64: int
    sendto: int
    sendmsg: int


def _refused(place: int) -> tuple[int, ...]:
    numbers = (each[place] for each in REFUSED.values())
    return tuple(sorted(number for number in numbers if number is not None))


MACHINES = {
    "x86_64": Machine(
        name="x86_64",
        audit=0xC000003E,
        x32=True,
        refused=_refused(0),
        clone=56,
        clone3=435,
        socket=41,
        prctl=157,
        prlimit64=302,
        sendto=44,
        sendmsg=46,
    ),
    "aarch64": Machine(
        name="aarch64",
        audit=0xC00000B7,
        x32=False,
        refused=_refused(1),
        clone=220,
        clone3=435,
        socket=198,
        prctl=167,
        prlimit64=261,
        sendto=206,
        sendmsg=211,
    ),
}
