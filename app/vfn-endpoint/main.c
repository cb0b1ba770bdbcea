/* SPDX-License-Identifier: BSD-3-Clause
 *
 * vfn-endpoint: serve functions as PCI devices on vfio-user sockets. Options, start and end of the
 * program, all on the main thread, which after that only waits for a signal.
 */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_eal.h>
#include <rte_errno.h>

#include "app.h"

const char program[] = "vfn-endpoint";

static bool no_confine;

const char usage[] =
	"Usage: vfn-endpoint [EAL options] -- [options]\n"
	"       vfn-endpoint [options]                  EAL without hugepages and PCI devices\n"
	"Serve virtio functions as PCI devices, each on a vfio-user socket of its own.\n"
	"\n"
	"  --function NAME[,KEY=VALUE]...\n"
	"                     a function; may be repeated. Keys:\n"
	"                     socket=PATH socket-mode=MODE socket-owner=USER[:GROUP]\n"
	"                     control=endpoint|host   who decides what it offers (endpoint)\n"
	"                     ntb=PATH ntb-size=MIB ntb-latency=US\n"
	"                                             behind a simulated bridge, not a socket\n"
	"                     msix=on|off             off: interrupts by the pin alone (on)\n"
	"                     queue-size=N            largest that a driver is told (1024)\n"
	"                     queues mac mtu port peer ethdev gen offloads rate-mbps poll-cpu "
	"idle\n"
	"                     dma pool fault class file mem null readonly share serial block-size "
	"cache "
	"iops "
	"bps\n"
	"                     rate-group              as the driver's device arguments\n"
	"  --socket-path PATH socket of the only function; without --function that is fn0\n"
	"  --fd N             the same, on a socket that is open: one that listens, or is "
	"connected\n"
	"  --user NAME[:GROUP] when EAL is up, become that user for good\n"
	"  --no-confine       no seccomp filter; may gain privileges, be traced, leave core files\n"
	"  --version          versions of this program and of DPDK\n"
	"  -h, --help         this text\n"
	"\n"
	"Example: vfn-endpoint --function a,socket=/run/a --function "
	"b,socket=/run/b,peer=a,port=wire\n"
	"Exit status: 0 ended as asked, 1 failure, 2 wrong usage\n";

static void
parse_options(int argc, char **argv)
{
	enum { FUNCTION = OPTION_LONG, SOCKET_PATH, FD, USER, NO_CONFINE, HELP, VERSION };
	static const struct option names[] = {
		{"function", required_argument, NULL, FUNCTION},
		{"socket-path", required_argument, NULL, SOCKET_PATH},
		{"fd", required_argument, NULL, FD},
		{"user", required_argument, NULL, USER},
		{"no-confine", no_argument, NULL, NO_CONFINE},
		{"help", no_argument, NULL, HELP},
		{"version", no_argument, NULL, VERSION},
		{NULL, 0, NULL, 0},
	};
	const char *socket_path = NULL, *fd = NULL;
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":h", names, NULL)) != -1) {
		switch (opt) {
		case FUNCTION:
			if (function_parse(optarg) != 0)
				exit(EXIT_USAGE);
			break;
		case SOCKET_PATH:
			socket_path = optarg;
			break;
		case FD:
			fd = optarg;
			break;
		case USER:
			if (user_find(optarg) != 0)
				exit(EXIT_USAGE);
			break;
		case NO_CONFINE:
			no_confine = true;
			break;
		case HELP:
		case 'h':
			show_help();
			break;
		case VERSION:
			show_version();
			break;
		default:
			option_wrong(opt, argv);
		}
	}
	options_end(argc, argv);
	if (functions_complete(socket_path, fd) != 0)
		exit(EXIT_USAGE);
}

/* Per queue a doorbell and an interrupt, and a few more. */
static void
have_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* Until a signal, or until nobody is served any more. */
static int
wait_for_end(int sigfd)
{
	struct pollfd *fds = calloc(nb_served + 1, sizeof(*fds));
	unsigned int i, left = nb_served;
	int code = EXIT_OK;

	if (fds == NULL) {
		report("no memory");
		return EXIT_RUNTIME;
	}
	for (i = 0; i < nb_served; i++)
		fds[i] = (struct pollfd){/* One behind a bridge has no end. */
			.fd = served[i].endpoint != NULL ?
				vfn_endpoint_ended_fd(served[i].endpoint) :
				-1,
			.events = POLLIN};
	fds[nb_served] = (struct pollfd){.fd = sigfd, .events = POLLIN};
	while (left > 0 && fds[nb_served].revents == 0) {
		if (poll(fds, nb_served + 1, -1) < 0)
			continue;
		for (i = 0; i < nb_served; i++) {
			if (fds[i].fd < 0 || fds[i].revents == 0)
				continue;
			fds[i].fd = -1;
			left--;
			/* The only client that there could be has left; else a socket has failed.
			 */
			if (served[i].fd < 0)
				code = EXIT_RUNTIME;
		}
	}
	free(fds);
	return code;
}

static int
serve(int sigfd)
{
	if (functions_open() != 0)
		return EXIT_RUNTIME;
	/* Before the first client. */
	if (confine(no_confine) != 0)
		return EXIT_RUNTIME;
	if (serving_begin() != 0)
		return EXIT_RUNTIME;
	printf("%s: ready, %u function(s)\n", program, nb_served);
	return wait_for_end(sigfd);
}

int
main(int argc, char **argv)
{
	static const char *const plain[] = {"--no-pci", "--no-huge", "-m", "64", "--no-shconf"};
	char *eal[RTE_DIM(plain) + 2] = {argv[0]};
	int eal_argc, parsed, sigfd, code;

	open_standard_fds();
	/* EAL's own stream goes to syslog too. */
	output_init(!is_given(argc, argv, "--syslog"));
	eal_argc = options_split(argc, argv);
	if (eal_argc < argc) {
		parse_options(argc - eal_argc, argv + eal_argc);
	} else {
		/* As programs are started that know no EAL. */
		parse_options(argc, argv);
		memcpy(eal + 1, plain, sizeof(plain));
		eal_argc = RTE_DIM(plain) + 1;
		argv = eal;
	}
	vfn_blk_trace_register();
	sigfd = ending_signals();
	if (sigfd < 0 || confine_early(no_confine) != 0)
		return EXIT_RUNTIME;
	have_descriptors();
	parsed = rte_eal_init(eal_argc, argv);
	if (parsed < 0) {
		report_eal_failure(rte_errno);
		return EXIT_RUNTIME;
	}
	if (parsed + 1 < eal_argc) {
		report("unexpected argument %s, see --help", argv[parsed + 1]);
		code = EXIT_USAGE;
	} else {
		code = serve(sigfd);
	}
	functions_close();
	rte_eal_cleanup();
	return code;
}
