/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The prompt of --interactive, on standard input and output: a terminal, a pipe or a FIFO. Runs on
 * the main thread, which calls cli_input() whenever there is something to read.
 */

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_dev.h>

#include <cmdline_parse.h>
#include <cmdline_parse_string.h>
#include <cmdline_socket.h>
#include <cmdline.h>

#include "app.h"

struct command {
	cmdline_fixed_string_t name;
	cmdline_fixed_string_t path;
	cmdline_fixed_string_t device;
	cmdline_fixed_string_t queue;
	cmdline_fixed_string_t topic;
};

static struct cmdline *cli;
static bool quit;

static struct rte_vdpa_device *
find_device(struct cmdline *cl, const char *name)
{
	struct rte_vdpa_device *dev = rte_vdpa_find_device_by_name(name);

	if (dev == NULL)
		cmdline_printf(cl, "No vDPA device is named %s.\n", name);
	return dev;
}

static const struct {
	const char *name;
	const char *arguments;
	const char *summary;
	const char *more;
} texts[] = {
	{"help", "[COMMAND]", "this text, or more about a command", ""},
	{"list", "", "every vDPA device, what it offers and its socket",
		"queues: for a network device, queue pairs. features: of virtio, as the device "
		"offers\n"
		"them. protocol features: of vhost-user. socket: - if there is none yet, see "
		"create.\n"},
	{"create", "PATH DEVNAME", "serve a device on a socket",
		"A device has one socket, and a socket one device. With --client it is the "
		"front-end that\n"
		"makes the socket. What is in the way at PATH is left alone, unless it is a socket "
		"that\n"
		"nobody serves.\n"},
	{"stats", "DEVNAME QUEUE|all", "counters of one virtqueue, or of all that are in use",
		"Even numbers are receive queues (to the driver in the guest), odd ones transmit "
		"queues.\n"
		"Counters begin with the device, not with the guest; what each of them counts is "
		"in the\n"
		"guide of the driver, doc/vdpadevs/vfn.rst. all: needs a guest.\n"},
	{"snapshot", "DEVNAME FILE", "save a device; traffic goes on",
		"Without a guest, as the last one left it. FILE is replaced at "
		"once or\n"
		"not at all.\n"},
	{"restore", "DEVNAME FILE", "have the next guest of a device go on with what was saved",
		"The device must have no guest. What does not fit is refused.\n"},
	{"quit", "", "disconnect, remove the sockets, end", "exit does the same.\n"},
};

static void
cmd_help(void *parsed, struct cmdline *cl, void *data)
{
	unsigned int i;

	(void)parsed;
	(void)data;
	for (i = 0; i < RTE_DIM(texts); i++)
		cmdline_printf(
			cl, "%-9s%-18s %s\n", texts[i].name, texts[i].arguments, texts[i].summary);
	cmdline_printf(cl, "TAB completes commands and names of devices.\n");
}

static void
cmd_help_one(void *parsed, struct cmdline *cl, void *data)
{
	const char *name = ((struct command *)parsed)->topic;
	unsigned int i;

	(void)data;
	if (strcmp(name, "exit") == 0)
		name = "quit";
	for (i = 0; i < RTE_DIM(texts); i++)
		if (strcmp(texts[i].name, name) == 0)
			cmdline_printf(cl, "%s%s%s: %s.\n%s", name,
				texts[i].arguments[0] != '\0' ? " " : "", texts[i].arguments,
				texts[i].summary, texts[i].more);
}

static void
cmd_list(void *parsed, struct cmdline *cl, void *data)
{
	uint64_t features, protocol_features;
	struct rte_dev_iterator it;
	struct rte_vdpa_device *vdpa;
	struct rte_device *dev;
	uint32_t queues;
	const char *path;

	(void)parsed;
	(void)data;
	cmdline_printf(cl, "%-20s %6s %18s %18s  %s\n", "device", "queues", "features",
		"protocol features", "socket");
	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		vdpa = rte_vdpa_find_device_by_name(rte_dev_name(dev));
		if (rte_vdpa_get_queue_num(vdpa, &queues) < 0 ||
			rte_vdpa_get_features(vdpa, &features) < 0 ||
			rte_vdpa_get_protocol_features(vdpa, &protocol_features) < 0) {
			cmdline_printf(cl, "%-20s gives no answer\n", rte_dev_name(dev));
			continue;
		}
		path = served_path(vdpa);
		cmdline_printf(cl, "%-20s %6" PRIu32 " %#18" PRIx64 " %#18" PRIx64 "  %s\n",
			rte_dev_name(dev), queues, features, protocol_features,
			path != NULL ? path : "-");
	}
}

static void
cmd_create(void *parsed, struct cmdline *cl, void *data)
{
	struct command *cmd = parsed;
	struct rte_vdpa_device *dev = find_device(cl, cmd->device);

	struct socket_spec sock = {.uid = -1, .gid = -1};

	(void)data;
	if (dev == NULL)
		return;
	snprintf(sock.path, sizeof(sock.path), "%s", cmd->path);
	serve_device(&sock, dev);
}

static void
print_stats(struct cmdline *cl, struct rte_vdpa_device *dev, uint16_t queue,
	const struct rte_vdpa_stat_name *names, struct rte_vdpa_stat *stats, int nb_names)
{
	int i, n = rte_vdpa_get_stats(dev, queue, stats, nb_names);
	int (*control)(const char *device);
	const char *role = "";

	if (n <= 0) {
		cmdline_printf(
			cl, "%s gives no statistics of virtqueue %u.\n", vdpa_name(dev), queue);
		return;
	}
	if (driver_function(dev, "rte_vdpa_vfn_control_queue", &control, sizeof(control)) &&
		control(vdpa_name(dev)) == queue)
		role = " (control)";
	cmdline_printf(cl, "\tVirtq %u%s:\n", queue, role);
	for (i = 0; i < n; i++)
		if (stats[i].id < (uint64_t)nb_names)
			cmdline_printf(cl, "\t\t%-*s %-16" PRIu64 "\n", RTE_VDPA_STATS_NAME_SIZE,
				names[stats[i].id].name, stats[i].value);
}

/* The virtqueues meant by "QUEUE|all": [*first, *end). */
static bool
parse_queues(struct cmdline *cl, const struct command *cmd, struct rte_vdpa_device *dev,
	unsigned int *first, unsigned int *end)
{
	unsigned long queue;
	char *rest;

	if (strcmp(cmd->queue, "all") == 0) {
		*first = 0;
		*end = served_rings(dev);
		if (*end == 0)
			cmdline_printf(cl, "No front-end is connected to %s: name a queue.\n",
				cmd->device);
		return *end > 0;
	}
	queue = strtoul(cmd->queue, &rest, 10);
	if (*rest != '\0' || queue > UINT16_MAX) {
		cmdline_printf(cl, "%s is not the number of a virtqueue.\n", cmd->queue);
		return false;
	}
	*first = queue;
	*end = queue + 1;
	return true;
}

static void
cmd_stats(void *parsed, struct cmdline *cl, void *data)
{
	struct command *cmd = parsed;
	struct rte_vdpa_device *dev = find_device(cl, cmd->device);
	struct rte_vdpa_stat_name *names = NULL;
	struct rte_vdpa_stat *stats = NULL;
	unsigned int queue, end;
	int n;

	(void)data;
	if (dev == NULL || !parse_queues(cl, cmd, dev, &queue, &end))
		return;
	n = rte_vdpa_get_stats_names(dev, NULL, 0);
	if (n > 0) {
		names = calloc(n, sizeof(*names));
		stats = calloc(n, sizeof(*stats));
	}
	if (names == NULL || stats == NULL || rte_vdpa_get_stats_names(dev, names, n) != n) {
		cmdline_printf(cl, "%s gives no statistics.\n", cmd->device);
	} else {
		cmdline_printf(cl, "\nDevice %s:\n", cmd->device);
		for (; queue < end; queue++)
			print_stats(cl, dev, queue, names, stats, n);
	}
	free(stats);
	free(names);
}

static void
cmd_snapshot(void *parsed, struct cmdline *cl, void *data)
{
	struct command *cmd = parsed;
	struct rte_vdpa_device *dev = find_device(cl, cmd->device);

	(void)data;
	if (dev != NULL && parts_save(dev, cmd->path) == 0)
		cmdline_printf(cl, "%s is saved in %s.\n", cmd->device, cmd->path);
}

static void
cmd_restore(void *parsed, struct cmdline *cl, void *data)
{
	struct command *cmd = parsed;
	struct rte_vdpa_device *dev = find_device(cl, cmd->device);

	(void)data;
	if (dev != NULL && parts_load(dev, cmd->path) == 0)
		cmdline_printf(
			cl, "The next guest of %s goes on with %s.\n", cmd->device, cmd->path);
}

static void
cmd_quit(void *parsed, struct cmdline *cl, void *data)
{
	(void)parsed;
	(void)data;
	quit = true;
	cmdline_quit(cl);
}

/* ---- what is typed ---- */

/* The device with that number, NULL if there are fewer. */
static const char *
device_name(int number)
{
	struct rte_dev_iterator it;
	const char *name = NULL;
	struct rte_device *dev;

	/* To its end: that releases the iterator. */
	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it)
		if (number-- == 0)
			name = rte_dev_name(dev);
	return name;
}

static int
complete_nb(cmdline_parse_token_hdr_t *token)
{
	int nb = 0;

	(void)token;
	while (device_name(nb) != NULL)
		nb++;
	return nb;
}

static int
complete_name(cmdline_parse_token_hdr_t *token, int number, char *text, unsigned int size)
{
	const char *name = device_name(number);

	(void)token;
	if (name == NULL || strlen(name) >= size)
		return -1;
	strcpy(text, name);
	return 0;
}

/* A word, for which TAB offers the names of devices. */
static struct cmdline_token_ops device_ops = {
	.parse = cmdline_parse_string,
	.complete_get_nb = complete_nb,
	.complete_get_elt = complete_name,
	.get_help = cmdline_get_help_string,
};

#define WORD(field, word) TOKEN_STRING_INITIALIZER(struct command, field, word)

static cmdline_parse_token_string_t help_word = WORD(name, "help"), list_word = WORD(name, "list"),
				    create_word = WORD(name, "create"),
				    stats_word = WORD(name, "stats"),
				    snapshot_word = WORD(name, "snapshot"),
				    restore_word = WORD(name, "restore"),
				    quit_word = WORD(name, "quit#exit"),
				    topic_arg = WORD(topic,
					    "help#list#create#stats#snapshot#restore#quit#exit"),
				    path_arg = WORD(path, NULL), queue_arg = WORD(queue, NULL);
static cmdline_parse_token_string_t device_arg = {
	.hdr = {.ops = &device_ops, .offset = offsetof(struct command, device)},
};

static cmdline_parse_inst_t
	help_cmd = {cmd_help, NULL, "help", {(void *)&help_word, NULL}},
	help_one_cmd = {cmd_help_one, NULL, "help COMMAND",
		{(void *)&help_word, (void *)&topic_arg, NULL}},
	list_cmd = {cmd_list, NULL, "list", {(void *)&list_word, NULL}},
	create_cmd = {cmd_create, NULL, "create PATH DEVNAME",
		{(void *)&create_word, (void *)&path_arg, (void *)&device_arg, NULL}},
	stats_cmd = {cmd_stats, NULL, "stats DEVNAME QUEUE|all",
		{(void *)&stats_word, (void *)&device_arg, (void *)&queue_arg, NULL}},
	snapshot_cmd = {cmd_snapshot, NULL, "snapshot DEVNAME FILE",
		{(void *)&snapshot_word, (void *)&device_arg, (void *)&path_arg, NULL}},
	restore_cmd = {cmd_restore, NULL, "restore DEVNAME FILE",
		{(void *)&restore_word, (void *)&device_arg, (void *)&path_arg, NULL}},
	quit_cmd = {cmd_quit, NULL, "quit, exit", {(void *)&quit_word, NULL}};

static cmdline_parse_ctx_t commands[] = {
	&help_cmd,
	&help_one_cmd,
	&list_cmd,
	&create_cmd,
	&stats_cmd,
	&snapshot_cmd,
	&restore_cmd,
	&quit_cmd,
	NULL,
};

int
cli_start(void)
{
	cli = cmdline_stdin_new(commands, "vdpa> ");
	if (cli == NULL) {
		report("cannot start the prompt");
		return -1;
	}
	return 0;
}

enum cli_state
cli_input(void)
{
	char buf[256];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return CLI_RUNNING;
	if (n > 0 && cmdline_in(cli, buf, n) >= 0)
		return CLI_RUNNING;
	return quit ? CLI_QUIT : CLI_ENDED;
}

void
cli_stop(void)
{
	cmdline_stdin_exit(cli);
	cli = NULL;
}
