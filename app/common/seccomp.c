/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The system calls that are left to a running server, on all of its threads. What serving,
 * reconnects, migration, files of parts, hand-over, telemetry, the prompt and DPDK's ports need is
 * allowed, found by tracing the tests; all else answers EPERM. An error and no signal: should a
 * library ask for something that no test made it ask for, one operation fails, not every guest's
 * network; and whoever took over a thread gains nothing by asking again. Runs on the main thread.
 */

#include <errno.h>

#include "common.h"

#ifdef HAVE_SECCOMP

#include <dlfcn.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_ethdev.h>

/* With any arguments. */
static const char *const allowed[] = {
	/* descriptors and files */
	"access",
	"close",
	"close_range",
	"dup",
	"dup2",
	"dup3",
	"eventfd2",
	"faccessat",
	"faccessat2",
	"fadvise64",
	"fallocate",
	"fchmod",
	"fcntl",
	"fdatasync",
	"flock",
	"fstat",
	"fstatfs",
	"fsync",
	"ftruncate",
	"getcwd",
	"getdents64",
	"lseek",
	"lstat",
	"memfd_create",
	"mkdir",
	"mkdirat",
	"newfstatat",
	"open",
	"openat",
	"pipe2",
	"pread64",
	"preadv",
	"preadv2",
	"pwrite64",
	"pwritev",
	"read",
	"readlink",
	"readlinkat",
	"readv",
	"rename",
	"renameat",
	"renameat2",
	"rmdir",
	"stat",
	"statfs",
	"statx",
	"umask",
	"unlink",
	"unlinkat",
	"write",
	"writev",
/* a socket's owner; who is no root can give files to groups of his own only */
#ifdef SYS_lchown
	"lchown",
#else
	"fchownat",
#endif
	/* waiting and time */
	"clock_getres",
	"clock_gettime",
	"clock_nanosleep",
	"epoll_create",
	"epoll_create1",
	"epoll_ctl",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_wait",
	"gettimeofday",
	"nanosleep",
	"poll",
	"ppoll",
	"pselect6",
	"restart_syscall",
	"select",
	"time",
	"timer_create",
	"timer_delete",
	"timer_gettime",
	"timer_settime",
	"timerfd_create",
	"timerfd_gettime",
	"timerfd_settime",
	/* sockets that are there */
	"accept",
	"accept4",
	"bind",
	"connect",
	"getpeername",
	"getsockname",
	"getsockopt",
	/* files behind block functions, by rings that are set up, and restricted, before */
	"io_uring_enter",
	"listen",
	"recvfrom",
	"recvmmsg",
	"recvmsg",
	"sendmmsg",
	"sendmsg",
	"sendto",
	"setsockopt",
	"shutdown",
	/* memory; mapping it: below */
	"brk",
	"get_mempolicy",
	"madvise",
	"mbind",
	"membarrier",
	"mincore",
	"mlock",
	"mlock2",
	"move_pages",
	"mremap",
	"msync",
	"munlock",
	"munmap",
	"set_mempolicy",
	/* threads and signals; starting and signalling them: below */
	"exit",
	"exit_group",
	"futex",
	"get_robust_list",
	"getcpu",
	"getpriority",
	"rseq",
	"rt_sigaction",
	"rt_sigpending",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigsuspend",
	"rt_sigtimedwait",
	"sched_get_priority_max",
	"sched_get_priority_min",
	"sched_getaffinity",
	"sched_getparam",
	"sched_getscheduler",
	"sched_setaffinity",
	"sched_yield",
	"set_robust_list",
	"set_tid_address",
	"sigaltstack",
	"signalfd4",
	/* questions */
	"getegid",
	"geteuid",
	"getgid",
	"getgroups",
	"getpgrp",
	"getpid",
	"getppid",
	"getrandom",
	"getresgid",
	"getresuid",
	"getrlimit",
	"getrusage",
	"gettid",
	"getuid",
	"sysinfo",
	"times",
	"uname",
};

/* Of terminals, one by one: their type has TIOCSTI and TIOCLINUX in it, too. */
static const unsigned int ioctls[] = {
	TCGETS,
	TCSETS,
	TCSETSW,
	TCSETSF,
	TIOCGWINSZ,
	TIOCGPGRP,
	FIONREAD,
	FIONBIO,
};

/* Of net_tap, which makes an interface whenever its port is opened. */
static const unsigned int tap_ioctls[] = {
	TUNGETFEATURES,
	TUNSETIFF,
	TUNGETIFF,
	TUNSETOFFLOAD,
	TUNSETSNDBUF,
	TUNSETVNETHDRSZ,
	TUNSETQUEUE,
};

/*
 * Types of ioctls, the second byte: what devices of other drivers need. Not among them is that of
 * /dev/userfaultfd.
 */
static const unsigned int ioctl_types[] = {
	0x89, /* network interfaces */
	';',  /* VFIO */
	0x1b, /* RDMA */
	0xaf, /* the kernel's vhost */
	0x81, /* VDUSE */
};

#define ALLOW_IF(ctx, call, ...) \
	seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(call), 1, __VA_ARGS__)

/* Where the arguments tell harmless from harmful. All rules that are added are alternatives. */
static int
add_conditional(scmp_filter_ctx ctx)
{
	const uint64_t namespaces = CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS |
		CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS | CLONE_PTRACE;
	unsigned int i;
	int ret = 0;

	/* a thread, never a process */
	ret |= ALLOW_IF(
		ctx, clone, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | namespaces, CLONE_THREAD));
	/* its flags are in memory, where no filter sees them; glibc then uses clone */
	ret |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	/* no new code */
	ret |= ALLOW_IF(ctx, mmap, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	ret |= ALLOW_IF(ctx, mprotect, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* to our own threads, abort() included */
	ret |= ALLOW_IF(ctx, tgkill, SCMP_A0(SCMP_CMP_EQ, getpid()));
	ret |= ALLOW_IF(ctx, prlimit64, SCMP_A0(SCMP_CMP_EQ, 0));
	ret |= ALLOW_IF(ctx, prctl, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	ret |= ALLOW_IF(ctx, prctl, SCMP_A0(SCMP_CMP_EQ, PR_GET_NAME));
	/* no way to other machines, nor to the kernel's less trodden protocols */
	ret |= ALLOW_IF(ctx, socket, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	ret |= ALLOW_IF(ctx, socketpair, SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	for (i = 0; i < RTE_DIM(ioctls); i++)
		ret |= ALLOW_IF(ctx, ioctl, SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	for (i = 0; i < RTE_DIM(ioctl_types); i++)
		ret |= ALLOW_IF(ctx, ioctl,
			SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, (uint64_t)ioctl_types[i] << 8));
	return ret;
}

/* A port of DPDK's is opened and closed with the functions on it. */
static int
add_for_ports(scmp_filter_ctx ctx)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < RTE_DIM(tap_ioctls); i++)
		ret |= ALLOW_IF(ctx, ioctl, SCMP_A1(SCMP_CMP_EQ, tap_ioctls[i]));
	ret |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
		SCMP_A0(SCMP_CMP_EQ, AF_NETLINK), SCMP_A2(SCMP_CMP_EQ, NETLINK_ROUTE));
	return ret;
}

static int
add_unconditional(scmp_filter_ctx ctx)
{
	unsigned int i;
	int call, ret = 0;

	for (i = 0; i < RTE_DIM(allowed); i++) {
		call = seccomp_syscall_resolve_name(allowed[i]);
		/* that old a library knows no such call, and its kernel has none */
		if (call != __NR_SCMP_ERROR)
			ret |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, call, 0);
	}
	return ret;
}

int
seccomp_install(void)
{
	scmp_filter_ctx ctx;
	int ret;

	/*
	 * pthread_cancel() and pthread_exit(), with which EAL ends a thread of its own, load this
	 * when first called, and abort the process if they cannot.
	 */
	if (dlopen("libgcc_s.so.1", RTLD_NOW) == NULL)
		report("%s", dlerror());

	ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (ctx == NULL)
		return -ENOMEM;
	/* Every thread there is; those to come inherit it. */
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* Calls of the 32-bit and x32 tables get the same answer. */
	if (ret == 0)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
	if (ret == 0 && (add_unconditional(ctx) != 0 || add_conditional(ctx) != 0))
		ret = -EINVAL;
	if (ret == 0 && rte_eth_dev_count_avail() > 0 && add_for_ports(ctx) != 0)
		ret = -EINVAL;
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret;
}

#else

int
seccomp_install(void)
{
	return 1;
}

#endif
