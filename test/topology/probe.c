/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A plug-in of EAL for test_confine.py: it tries system calls inside the server, and tells by
 * telemetry what came of them. On two threads: telemetry's, which starts when the server is up, and
 * one that is there before EAL.
 */

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_telemetry.h>

#define NOBODY_HAS 0x7ffffff0L /* as process */

static int results[128];

/* ---- what must not be had: 0 or an errno ---- */

static int
forks(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		syscall(SYS_exit_group, 0);
	if (pid < 0)
		return errno;
	waitpid(pid, NULL, 0);
	return 0;
}

static int
maps_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return errno;
	munmap(page, 4096);
	return 0;
}

static int
makes_code(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	if (page == MAP_FAILED)
		return 0;
	ret = mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0 ? 0 : errno;
	munmap(page, 4096);
	return ret;
}

#ifdef __x86_64__
static sigjmp_buf before_i386;

static void
no_i386(int sig)
{
	siglongjmp(before_i386, sig);
}

/* A kernel without such calls refuses them by a signal. */
static int
calls_as_i386(void)
{
	struct sigaction act = {.sa_handler = no_i386}, old;
	volatile long ret = -EPERM;

	sigaction(SIGSEGV, &act, &old);
	if (sigsetjmp(before_i386, 1) == 0)
		__asm__ volatile("int $0x80" : "=a"(ret) : "a"(20L) : "memory"); /* getpid */
	sigaction(SIGSEGV, &old, NULL);
	return ret < 0 ? -ret : 0;
}
#endif

static int
opens_socket(int family, int type)
{
	int fd = socket(family, type, 0);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int
inet(void)
{
	return opens_socket(AF_INET, SOCK_DGRAM);
}

static int
inet6(void)
{
	return opens_socket(AF_INET6, SOCK_STREAM);
}

static int
netlink(void)
{
	return opens_socket(AF_NETLINK, SOCK_RAW);
}

static int
packet(void)
{
	return opens_socket(AF_PACKET, SOCK_RAW);
}

static int
alg(void)
{
	return opens_socket(AF_ALG, SOCK_SEQPACKET);
}

/* Arguments with which nothing happens where the call is let through. */
#define CALL(name, ...) \
	{ \
#name, SYS_##name, {__VA_ARGS__ }, NULL \
	}

struct probe {
	const char *name;
	long call;
	long args[6];
	int (*run)(void); /* instead of call */
};

static const struct probe forbidden[] = {
	CALL(acct, (long)"/nonexistent/file"),
	CALL(add_key, 0),
	CALL(adjtimex, 0),
	CALL(bpf, -1),
	CALL(capset, 0),
	CALL(chroot, 0),
	CALL(clock_settime, -1),
	CALL(delete_module, 0),
	CALL(execve, (long)"/nonexistent/file"),
	CALL(execveat, -1, (long)"x"),
	CALL(fanotify_init, -1),
	CALL(fchmodat, -1, 0),
	CALL(fchownat, -1, 0, 0, 0, -1),
	CALL(finit_module, -1),
	CALL(init_module, 0),
	CALL(io_uring_setup, 0),
	CALL(kcmp, NOBODY_HAS, NOBODY_HAS),
	CALL(kexec_load, 0, -1),
	CALL(keyctl, -1),
	CALL(kill, NOBODY_HAS),
	CALL(linkat, -1, 0, -1, 0, -1),
	CALL(memfd_secret, -1),
	CALL(mknodat, -1, 0),
	CALL(mlockall, -1),
	CALL(mount, 0),
	CALL(move_mount, -1, 0, -1, 0, -1),
	CALL(name_to_handle_at, -1, 0),
	CALL(open_by_handle_at, -1, 0),
	CALL(open_tree, -1, 0, -1),
	CALL(openat2, -1, 0),
	CALL(perf_event_open, 0),
	CALL(personality, 0xffffffffL),
	CALL(pidfd_getfd, -1, -1),
	CALL(pidfd_open, -1),
	CALL(pivot_root, 0),
	CALL(pkey_alloc, -1),
	CALL(process_madvise, -1),
	CALL(process_vm_readv, NOBODY_HAS),
	CALL(process_vm_writev, NOBODY_HAS),
	CALL(ptrace, 16 /* PTRACE_ATTACH */, NOBODY_HAS),
	CALL(quotactl, -1),
	CALL(reboot, 0),
	CALL(request_key, 0),
	CALL(rt_sigqueueinfo, NOBODY_HAS, 0),
	CALL(sched_setscheduler, -1),
	CALL(seccomp, -1),
	CALL(setdomainname, 0, -1),
	CALL(sethostname, 0, -1),
	CALL(setns, -1),
	CALL(setpgid, -1),
	CALL(setresuid, -1, -1, -1),
	CALL(setresgid, -1, -1, -1),
	CALL(settimeofday, 0, 0),
	CALL(setxattr, 0),
	CALL(shmget, 0, 0, 0),
	CALL(splice, -1, 0, -1, 0, 1),
	CALL(swapon, 0),
	CALL(symlinkat, 0, -1, 0),
	CALL(syslog, -1),
	CALL(tkill, -1),
	CALL(umount2, 0),
	CALL(unshare, 1),
	CALL(userfaultfd, -1),
	CALL(vmsplice, -1, 0, 0),
	CALL(wait4, -1, 0, -1),
#ifdef __x86_64__
	CALL(ioperm, -1, -1),
	CALL(iopl, 7),
	CALL(modify_ldt, -1),
	{"i386", 0, {0}, calls_as_i386},
	{"x32", 0x40000000L | SYS_getpid, {0}, NULL},
#endif
	/* by their arguments */
	{"ioctl_TIOCSTI", SYS_ioctl, {-1, TIOCSTI}, NULL},
	{"ioctl_TIOCLINUX", SYS_ioctl, {-1, TIOCLINUX}, NULL},
	{"ioctl_USERFAULTFD_IOC_NEW", SYS_ioctl, {-1, 0xaa00}, NULL},
	{"prctl_PR_SET_DUMPABLE", SYS_prctl, {PR_SET_DUMPABLE, 99}, NULL},
	{"prctl_PR_SET_PDEATHSIG", SYS_prctl, {PR_SET_PDEATHSIG, -1}, NULL},
	{"clone_CLONE_NEWUSER", SYS_clone,
		{CLONE_THREAD | CLONE_VM | CLONE_SIGHAND | CLONE_NEWUSER}, NULL},
	{"clone_process", 0, {0}, forks},
	{"tgkill_other", SYS_tgkill, {NOBODY_HAS, NOBODY_HAS, 0}, NULL},
	{"prlimit64_other", SYS_prlimit64, {NOBODY_HAS, RLIMIT_NOFILE, 0, 0}, NULL},
	{"mmap_PROT_EXEC", 0, {0}, maps_code},
	{"mprotect_PROT_EXEC", 0, {0}, makes_code},
	{"socket_AF_INET", 0, {0}, inet},
	{"socket_AF_INET6", 0, {0}, inet6},
	{"socket_AF_NETLINK", 0, {0}, netlink},
	{"socket_AF_PACKET", 0, {0}, packet},
	{"socket_AF_ALG", 0, {0}, alg},
};

/* ---- what must go on ---- */

static void *
waits(void *arg)
{
	(void)arg;
	for (;;)
		poll(NULL, 0, -1);
	return NULL;
}

static void *
ends(void *arg)
{
	pthread_setname_np(pthread_self(), "probe-short");
	if (arg != NULL)
		pthread_exit(arg);
	return arg;
}

static int
starts_thread(void)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, ends, NULL);

	return ret == 0 ? pthread_join(thread, NULL) : ret;
}

/* EAL does at its end. */
static int
cancels_thread(void)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, waits, NULL);

	if (ret == 0)
		ret = pthread_cancel(thread);
	return ret == 0 ? pthread_join(thread, NULL) : ret;
}

static int
exits_thread(void)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, ends, &results);

	return ret == 0 ? pthread_join(thread, NULL) : ret;
}

static int
signals_thread(void)
{
	return pthread_kill(pthread_self(), SIGURG); /* ignored by default */
}

static int
maps_memory(void)
{
	int fd = memfd_create("probe", MFD_CLOEXEC), ret = ENOMEM;
	void *page;

	if (fd < 0)
		return errno;
	if (ftruncate(fd, 4096) == 0) {
		page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (page != MAP_FAILED && mprotect(page, 4096, PROT_READ) == 0 &&
			madvise(page, 4096, MADV_DONTDUMP) == 0 && munmap(page, 4096) == 0)
			ret = 0;
	}
	close(fd);
	return ret;
}

static int
finds_library(void)
{
	void *library = dlopen("librte_eal.so.23", RTLD_NOW | RTLD_NOLOAD);
	Dl_info info;

	if (library == NULL && dladdr(rte_telemetry_register_cmd, &info) != 0)
		library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
	if (library == NULL)
		return ENOENT;
	dlclose(library);
	return 0;
}

static int
local_socket(void)
{
	return opens_socket(AF_UNIX, SOCK_STREAM);
}

static int
opens(int fd)
{
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int
event(void)
{
	return opens(eventfd(0, EFD_NONBLOCK));
}

static int
timer(void)
{
	return opens(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
}

static int
file(void)
{
	return opens(open("/dev/null", O_RDWR | O_CLOEXEC));
}

static int
limit(void)
{
	struct rlimit rlimit;

	return getrlimit(RLIMIT_NOFILE, &rlimit) == 0 ? 0 : errno;
}

static const struct probe allowed[] = {
	{"thread", 0, {0}, starts_thread},
	{"pthread_cancel", 0, {0}, cancels_thread},
	{"pthread_exit", 0, {0}, exits_thread},
	{"pthread_kill", 0, {0}, signals_thread},
	{"shared_memory", 0, {0}, maps_memory},
	{"dlopen_RTLD_NOLOAD", 0, {0}, finds_library},
	{"socket_AF_UNIX", 0, {0}, local_socket},
	{"eventfd", 0, {0}, event},
	{"timerfd", 0, {0}, timer},
	{"file", 0, {0}, file},
	{"getrlimit", 0, {0}, limit},
};

/* ---- on which thread ---- */

static_assert(RTE_DIM(forbidden) <= RTE_DIM(results), "one for each");

static void
try_all(const struct probe *probes, unsigned int n)
{
	const long *a;
	unsigned int i;

	for (i = 0; i < n; i++) {
		a = probes[i].args;
		if (probes[i].run != NULL)
			results[i] = probes[i].run();
		else if (syscall(probes[i].call, a[0], a[1], a[2], a[3], a[4], a[5]) < 0)
			results[i] = errno;
		else
			results[i] = 0;
	}
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	const struct probe *probes; /* NULL: nothing to do */
	unsigned int n;
} early = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void *
early_thread(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&early.lock);
	for (;;) {
		while (early.probes == NULL)
			pthread_cond_wait(&early.changed, &early.lock);
		try_all(early.probes, early.n);
		early.probes = NULL;
		pthread_cond_broadcast(&early.changed);
	}
	return NULL;
}

static int
answer(const struct probe *probes, unsigned int n, const char *params, struct rte_tel_data *d)
{
	unsigned int i;
	int ret;

	pthread_mutex_lock(&early.lock);
	if (params != NULL && strcmp(params, "early") == 0) {
		early.probes = probes;
		early.n = n;
		pthread_cond_broadcast(&early.changed);
		while (early.probes != NULL)
			pthread_cond_wait(&early.changed, &early.lock);
	} else {
		try_all(probes, n);
	}
	ret = rte_tel_data_start_dict(d);
	for (i = 0; i < n && ret == 0; i++)
		ret = rte_tel_data_add_dict_int(d, probes[i].name, results[i]);
	pthread_mutex_unlock(&early.lock);
	return ret;
}

static int
try_forbidden(const char *cmd, const char *params, struct rte_tel_data *d)
{
	(void)cmd;
	return answer(forbidden, RTE_DIM(forbidden), params, d);
}

static int
try_allowed(const char *cmd, const char *params, struct rte_tel_data *d)
{
	(void)cmd;
	return answer(allowed, RTE_DIM(allowed), params, d);
}

RTE_INIT(probe_init)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, early_thread, NULL) != 0)
		abort();
	pthread_setname_np(thread, "probe-early");
	rte_telemetry_register_cmd("/probe/forbidden", try_forbidden, "errno per call");
	rte_telemetry_register_cmd("/probe/allowed", try_allowed, "errno per use");
}
