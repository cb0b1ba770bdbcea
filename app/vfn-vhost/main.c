/* SPDX-License-Identifier: BSD-3-Clause
 *
 * vfn-vhost: serve vDPA devices to vhost-user front-ends. Options, start and end of the program,
 * all on the main thread, which after that only waits for a signal or a command.
 */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>

#include "app.h"

#define DEFAULT_PREFIX "/tmp/vhost-user-"

const char program[] = "vfn-vhost";
struct options options;

const char usage[] =
	"Usage: vfn-vhost [EAL options] -- [options]\n"
	"Serve every vDPA device on a vhost-user socket of its own, or with vduse=NAME to the\n"
	"kernel.\n"
	"\n"
	"  --iface PREFIX     sockets are PREFIX0, PREFIX1, ... (default " DEFAULT_PREFIX ";\n"
	"                     with -i none unless given)\n"
	"  --client           connect to sockets which the front-ends own, reconnect for ever\n"
	"  --restore DIR      go on with the devices saved in DIR, files by name\n"
	"  --take-over PREFIX replace the vfn-vhost with that --file-prefix, guests go on\n"
	"  --keep             devices of the kernel's (vduse=NAME) stay at the end\n"
	"  --user NAME[:GROUP] when EAL is up, become that user for good\n"
	"  --no-confine       no seccomp filter; may gain privileges, be traced, leave core files\n"
	"  --no-gate          messages go to librte_vhost unjudged: for front-ends that are "
	"trusted\n"
	"  -i, --interactive  prompt with help, list, create, stats, snapshot, restore, quit\n"
	"  --version          versions of this program and of DPDK\n"
	"  -h, --help         this text\n"
	"\n"
	"EAL options: vfn-vhost -h. Without hugepages: --no-huge -m 64\n"
	"Example: vfn-vhost -d librte_vdpa_vfn.so --vdev vdpa_vfn0 -- --iface /run/vfn-\n"
	"Exit status: 0 ended as asked, 1 failure, 2 wrong usage, 3 no vDPA device\n";

static void
parse_options(int argc, char **argv)
{
	enum {
		IFACE = OPTION_LONG,
		CLIENT,
		RESTORE,
		TAKE_OVER,
		KEEP,
		USER,
		NO_CONFINE,
		NO_GATE,
		INTERACTIVE,
		HELP,
		VERSION
	};
	static const struct option names[] = {
		{"iface", required_argument, NULL, IFACE},
		{"client", no_argument, NULL, CLIENT},
		{"restore", required_argument, NULL, RESTORE},
		{"take-over", required_argument, NULL, TAKE_OVER},
		{"keep", no_argument, NULL, KEEP},
		{"user", required_argument, NULL, USER},
		{"no-confine", no_argument, NULL, NO_CONFINE},
		{"no-gate", no_argument, NULL, NO_GATE},
		{"interactive", no_argument, NULL, INTERACTIVE},
		{"help", no_argument, NULL, HELP},
		{"version", no_argument, NULL, VERSION},
		{NULL, 0, NULL, 0},
	};
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":ih", names, NULL)) != -1) {
		switch (opt) {
		case IFACE:
			options.prefix = optarg;
			break;
		case CLIENT:
			options.client = true;
			break;
		case RESTORE:
			options.restore = optarg;
			break;
		case TAKE_OVER:
			options.take_over = optarg;
			break;
		case KEEP:
			options.keep = true;
			break;
		case USER:
			if (user_find(optarg) != 0)
				exit(EXIT_USAGE);
			break;
		case NO_CONFINE:
			options.no_confine = true;
			break;
		case NO_GATE:
			options.no_gate = true;
			break;
		case INTERACTIVE:
		case 'i':
			options.interactive = true;
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
	if (options.prefix != NULL && options.prefix[0] == '\0') {
		report("--iface is empty");
		exit(EXIT_USAGE);
	}
	if (options.restore != NULL && options.take_over != NULL) {
		report("--restore and --take-over exclude each other");
		exit(EXIT_USAGE);
	}
	if (options.prefix == NULL && !options.interactive)
		options.prefix = DEFAULT_PREFIX;
}

static int
report_no_device(void)
{
	report("no vDPA device: load its driver (-d librte_vdpa_vfn.so) and name a function "
	       "(--vdev vdpa_vfn0); what was refused is in the log above");
	return EXIT_NO_DEVICE;
}

static int
serve(int sigfd)
{
	struct pollfd fds[] = {
		{.fd = sigfd, .events = POLLIN}, {.fd = -1, .events = POLLIN},
		{.fd = handover_init(), .events = POLLIN},
		{.fd = -1, .events = POLLIN}, /* the process that was taken over from */
	};
	struct rte_dev_iterator it;
	enum cli_state state = CLI_RUNNING;

	rte_dev_iterator_init(&it, VDPA_DEVICES); /* fails for any old rte_errno: next tells */
	if (rte_dev_iterator_next(&it) == NULL)
		return report_no_device();
	if (!devices_complete())
		return EXIT_NO_DEVICE;
	devices_warn();
	/* What only root can. */
	if (vduse_create() != 0)
		return EXIT_RUNTIME;
	/* Before files that others wrote are read, and before the first front-end. */
	if (confine(options.no_confine) != 0)
		return EXIT_RUNTIME;
	if (fds[2].fd < 0 || (!options.no_gate && gate_start() != 0) ||
		(options.restore != NULL && parts_load_all(options.restore) != 0))
		return EXIT_RUNTIME;
	if (options.take_over == NULL && !devices_ready())
		return EXIT_NO_DEVICE;
	/* Last of all that can fail: from here on the front-ends wait. */
	if (options.take_over != NULL) {
		fds[3].fd = take_over(options.take_over, sigfd);
		if (fds[3].fd < 0 || !devices_ready())
			return EXIT_RUNTIME;
	}
	if (serving_prepare(options.prefix) != 0 ||
		(options.take_over != NULL && take_over_commit() != 0) || serving_begin() != 0)
		return EXIT_RUNTIME;
	printf("vfn-vhost: ready, %u socket(s)\n", serving_count());

	if (options.interactive) {
		if (cli_start() != 0)
			return EXIT_RUNTIME;
		fds[1].fd = STDIN_FILENO;
	}
	while (fds[0].revents == 0 && state != CLI_QUIT) {
		if (poll(fds, 4, handover_timeout()) < 0)
			continue;
		if ((fds[2].revents != 0 || handover_timeout() >= 0) && handover_run())
			break;
		if (fds[3].revents != 0) {
			taken_over();
			fds[3].fd = -1;
		}
		if (fds[1].revents == 0)
			continue;
		state = cli_input();
		if (state == CLI_ENDED) {
			cli_stop();
			fds[1].fd = -1;
			printf("\nvfn-vhost: end of input, serving until SIGTERM or SIGINT\n");
		}
	}
	return EXIT_OK;
}

int
main(int argc, char **argv)
{
	int eal_argc, parsed, sigfd, code;

	open_standard_fds();

	/* EAL's own stream goes to syslog too. */
	output_init(!is_given(argc, argv, "--syslog"));
	eal_argc = options_split(argc, argv);
	parse_options(argc - eal_argc, argv + eal_argc);

	sigfd = ending_signals();
	if (sigfd < 0)
		return EXIT_RUNTIME;

	if (!devices_named_once(eal_argc, argv))
		return EXIT_USAGE;
	if (confine_early(options.no_confine) != 0)
		return EXIT_RUNTIME;
	parsed = rte_eal_init(eal_argc, argv);
	if (parsed < 0 && rte_errno == ENODEV) /* --vdev names what no loaded driver knows */
		return report_no_device();
	if (parsed < 0) {
		report_eal_failure(rte_errno);
		return EXIT_RUNTIME;
	}
	/* It says a hundred lines per connection. */
	if (!is_given(eal_argc, argv, "--log-level"))
		rte_log_set_level_pattern("lib.vhost.*", RTE_LOG_WARNING);
	if (parsed + 1 < eal_argc) {
		report("unexpected argument %s, see --help", argv[parsed + 1]);
		code = EXIT_USAGE;
	} else {
		code = serve(sigfd);
	}
	cli_stop();
	serving_end();
	gate_stop();
	rte_eal_cleanup();
	return code;
}
