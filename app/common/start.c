/* SPDX-License-Identifier: BSD-3-Clause
 *
 * How a program starts: what it needs before EAL, and what it says where that fails. On the main
 * thread.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <rte_common.h>

#include "common.h"

bool
is_given(int argc, char **argv, const char *option)
{
	size_t len = strlen(option);
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (strncmp(argv[i], option, len) == 0 &&
			(argv[i][len] == '\0' || argv[i][len] == '='))
			return true;
	return false;
}

void
open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int
ending_signals(void)
{
	static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM,
		SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGXCPU, SIGSTKFLT};
	struct sigaction act;
	sigset_t set;
	unsigned int i;
	int fd;

	sigemptyset(&set);
	for (i = 0; i < RTE_DIM(numbers); i++)
		if (numbers[i] != SIGHUP || sigaction(SIGHUP, NULL, &act) != 0 ||
			act.sa_handler != SIG_IGN)
			sigaddset(&set, numbers[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	signal(SIGPIPE, SIG_IGN); /* a log reader that leaves must not end the server */
	signal(SIGXFSZ, SIG_IGN); /* nor parts that are too large a file: an error */
	if (fd < 0)
		report("signalfd: %s", strerror(errno));
	return fd;
}

void
report_eal_failure(int err)
{
	const char *remedy;

	switch (err) {
	case EACCES:
		remedy = "reserve hugepages and mount hugetlbfs (--in-memory needs no mount), "
			 "or do without: --no-huge -m 64";
		break;
	case ENOMEM:
		remedy = "reserve more hugepages, or ask for less memory: -m 64";
		break;
	case EFAULT: /* two tracepoints of one name, for example */
		remedy = "is a driver loaded twice, in two versions: from DPDK's directory of "
			 "drivers, and by -d?";
		break;
	case EINVAL:
		remedy = "check what stands before \"--\" (our options come after it); a plugin is "
			 "given as -d NAME.so and found through LD_LIBRARY_PATH";
		break;
	default:
		remedy = "does another DPDK process use the same --file-prefix?";
	}
	report("EAL did not start: %s", remedy);
}
