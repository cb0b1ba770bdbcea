/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The functions of the command line: understood, made, served on their sockets. On the main thread.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_kvargs.h>

#include <ntb_sim.h>
#include <vfn_ntb.h>
#include <vringh.h>

#include "app.h"

#define DEFAULT_NAME "fn0"

/*
 * A driver that has nobody to decide for it fills rings of the largest size, and Linux searches all
 * of a ring for each buffer that it takes back. A client that has control brings its guests' rings.
 */
#define DEFAULT_QUEUE_SIZE 1024

struct served *served;
unsigned int nb_served;
pthread_mutex_t served_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the command line ---- */

static bool
parse_socket(const char *value, struct served *s)
{
	if (*value == '\0' || strlen(value) >= sizeof(s->socket.path))
		return false;
	strcpy(s->socket.path, value);
	return true;
}

static bool
parse_socket_mode(const char *value, struct served *s)
{
	s->has_mode = true;
	return parse_mode(value, &s->socket.mode);
}

static bool
parse_socket_owner(const char *value, struct served *s)
{
	s->has_mode = true;
	return parse_owner(value, &s->socket.uid, &s->socket.gid);
}

static bool
parse_control(const char *value, struct served *s)
{
	s->host_control = strcmp(value, "host") == 0;
	return s->host_control || strcmp(value, "endpoint") == 0;
}

static bool
parse_ntb(const char *value, struct served *s)
{
	if (*value == '\0' || strlen(value) >= sizeof(s->ntb_path))
		return false;
	strcpy(s->ntb_path, value);
	return true;
}

static bool
parse_number(const char *value, unsigned long least, unsigned long most, uint32_t *to)
{
	char *end;
	unsigned long v = strtoul(value, &end, 10);

	*to = v;
	return *value >= '0' && *value <= '9' && *end == '\0' && v >= least && v <= most;
}

static bool
parse_ntb_size(const char *value, struct served *s)
{
	return parse_number(value, 1, 4096, &s->ntb_mb);
}

static bool
parse_latency(const char *value, struct served *s)
{
	return parse_number(value, 0, 1000000, &s->latency_us);
}

static bool
parse_msix(const char *value, struct served *s)
{
	s->args.function.no_msix = strcmp(value, "off") == 0;
	return s->args.function.no_msix || strcmp(value, "on") == 0;
}

static bool
parse_queue_size(const char *value, struct served *s)
{
	char *end;
	unsigned long size = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end != '\0' || size < 64 || size > VRINGH_MAX_SIZE ||
		!rte_is_power_of_2(size))
		return false;
	s->args.net.queue_size = s->blk.queue_size = size;
	return true;
}

/* What it is was found out before. */
static bool
parse_class(const char *value, struct served *s)
{
	return s->is_blk || strcmp(value, "net") == 0;
}

/* Beside those of every function of its class. */
static const struct {
	const char *key;
	const char *values;
	bool (*parse)(const char *value, struct served *s);
} own_args[] = {
	{"class", "net or blk", parse_class},
	{"socket", "the path of a socket", parse_socket},
	{"socket-mode", "an octal mode", parse_socket_mode},
	{"socket-owner", "USER, USER:GROUP or :GROUP that is known", parse_socket_owner},
	{"control", "endpoint or host", parse_control},
	{"ntb", "the path of a bridge", parse_ntb},
	{"ntb-size", "1 to 4096", parse_ntb_size},
	{"ntb-latency", "0 to 1000000", parse_latency},
	{"msix", "on or off", parse_msix},
	{"queue-size", "a power of two from 64 to 32768", parse_queue_size},
};

/* All keys, one behind the other: what the net class knows, our own, what the block class knows. */
#define OWN_AT vfn_nb_net_args
#define BLK_AT (OWN_AT + RTE_DIM(own_args))

/* Number of a key among all there are; UINT_MAX: the class has none such. */
static unsigned int
find(const char *key, bool is_blk)
{
	unsigned int i;

	for (i = 0; i < RTE_DIM(own_args); i++)
		if (strcmp(key, own_args[i].key) == 0)
			return OWN_AT + i;
	for (i = 0; i < vfn_nb_blk_args && is_blk; i++)
		if (strcmp(key, vfn_blk_args_known[i].key) == 0)
			return BLK_AT + i;
	for (i = 0; i < vfn_nb_net_args; i++)
		if (strcmp(key, vfn_net_args_known[i].key) == 0 &&
			(!is_blk || vfn_net_args_known[i].any_class))
			return i;
	return UINT_MAX;
}

static int
parse_pair(const struct rte_kvargs_pair *pair, struct served *s, uint64_t *seen)
{
	const char *name = s->args.function.name, *value = pair->value, *values;
	unsigned int i = find(pair->key, s->is_blk);
	bool good;

	if (i == UINT_MAX) {
		report("--function %s: there is no key \"%s\"%s", name, pair->key,
			s->is_blk ? " of class=blk" : "");
		return -1;
	}
	if (*seen & UINT64_C(1) << i) {
		report("--function %s: \"%s\" is given twice", name, pair->key);
		return -1;
	}
	*seen |= UINT64_C(1) << i;
	if (i < OWN_AT) {
		values = vfn_net_args_known[i].values;
		good = value != NULL && vfn_net_args_known[i].parse(value, &s->args);
	} else if (i < BLK_AT) {
		values = own_args[i - OWN_AT].values;
		good = value != NULL && own_args[i - OWN_AT].parse(value, s);
	} else {
		values = vfn_blk_args_known[i - BLK_AT].values;
		good = value != NULL && vfn_blk_args_known[i - BLK_AT].parse(value, &s->blk);
	}
	if (good)
		return 0;
	report("--function %s: \"%s=%s\": expected %s", name, pair->key, value != NULL ? value : "",
		values);
	return -1;
}

static struct served *
served_new(const char *name)
{
	struct served *s;
	unsigned int i;

	for (i = 0; i < nb_served; i++) {
		if (strcmp(served[i].args.function.name, name) == 0) {
			report("--function %s is given twice", name);
			return NULL;
		}
	}
	if (nb_served == MAX_SERVED) {
		report("no more than %d functions", MAX_SERVED);
		return NULL;
	}
	s = realloc(served, (nb_served + 1) * sizeof(*served));
	if (s == NULL) {
		report("no memory");
		return NULL;
	}
	served = s;
	s = &served[nb_served];
	*s = (struct served){.fd = -1,
		.listener.fd = -1,
		.socket.uid = -1,
		.socket.gid = -1,
		.ntb_mb = VFN_NTB_WINDOW_SIZE >> 20};
	if (name[0] == '\0' || vfn_net_args_init(&s->args, name) < 0) {
		report("--function %s: a name has 1 to %d bytes", name, VFN_NAME_SIZE - 1);
		return NULL;
	}
	vfn_blk_args_init(&s->blk);
	nb_served++;
	return s;
}

/* What each key says is known. */
static int
check(struct served *s)
{
	char why[128];
	int ret = vfn_any_args_check(&s->args.function, why, sizeof(why));

	if (s->is_blk)
		s->args.function.class = &vfn_blk_class;
	if (ret == 0)
		ret = s->is_blk ? vfn_blk_args_check(&s->blk, why, sizeof(why)) :
				  vfn_net_args_check(&s->args, why, sizeof(why));
	if (ret == 0 && s->is_blk && s->host_control) {
		ret = -EINVAL;
		snprintf(why, sizeof(why), "\"control=host\" is for class=net");
	}
	if (ret == 0 && s->ntb_path[0] != '\0' && s->args.function.dma == VFN_DMA_BOUNCE) {
		ret = -EINVAL;
		snprintf(why, sizeof(why),
			"\"dma=bounce\" is for the driver to say: a bridge shows no guest's "
			"memory");
	}
	if (ret < 0)
		report("--function %s: %s", s->args.function.name, why);
	return ret < 0 ? -1 : 0;
}

int
function_parse(const char *text)
{
	size_t len = strcspn(text, ",");
	struct rte_kvargs *args;
	char name[256];
	const char *class;
	struct served *s;
	uint64_t seen = 0;
	unsigned int i;
	int ret = 0;

	snprintf(name, sizeof(name), "%.*s", (int)len, text);
	s = served_new(name);
	if (s == NULL)
		return -1;
	if (text[len] == '\0')
		return 0;
	args = rte_kvargs_parse(text + len + 1, NULL);
	if (args == NULL) {
		report("--function %s: malformed \"%s\"", name, text + len + 1);
		return -1;
	}
	/* Which keys there are depends on it. */
	class = rte_kvargs_get(args, "class");
	s->is_blk = class != NULL && strcmp(class, "blk") == 0;
	for (i = 0; i < args->count && ret == 0; i++)
		ret = parse_pair(&args->pairs[i], s, &seen);
	rte_kvargs_free(args);
	return ret == 0 ? check(s) : ret;
}

static int
parse_fd(const char *text, struct served *s)
{
	int type = -1;
	socklen_t len = sizeof(type);
	char *end;
	unsigned long fd = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end != '\0' || fd > INT_MAX ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM) {
		report("--fd %s is no stream socket", text);
		return -1;
	}
	s->fd = fd;
	return 0;
}

int
functions_complete(const char *socket_path, const char *fd)
{
	unsigned int i, j;

	if (socket_path != NULL && fd != NULL) {
		report("--socket-path and --fd exclude each other");
		return -1;
	}
	if (nb_served == 0 && socket_path == NULL && fd == NULL) {
		report("nothing to serve: name a function (--function fn0,socket=PATH)");
		return -1;
	}
	if (nb_served == 0 && served_new(DEFAULT_NAME) == NULL)
		return -1;
	if (socket_path != NULL || fd != NULL) {
		const char *option = fd != NULL ? "--fd" : "--socket-path";

		if (nb_served > 1 || served[0].socket.path[0] != '\0') {
			report("%s is for one function that has no other socket", option);
			return -1;
		}
		if (fd != NULL && served[0].has_mode) {
			report("%s: socket-mode and socket-owner are for sockets of our own",
				option);
			return -1;
		}
		if (fd != NULL && parse_fd(fd, &served[0]) != 0)
			return -1;
		if (socket_path != NULL && !parse_socket(socket_path, &served[0])) {
			report("--socket-path is empty or too long");
			return -1;
		}
	}
	for (i = 0; i < nb_served; i++) {
		struct served *s = &served[i];

		if (s->ntb_path[0] != '\0') {
			if (s->fd < 0 && s->socket.path[0] == '\0' && !s->has_mode)
				continue;
			report("--function %s: ntb=PATH is in place of a socket",
				s->args.function.name);
			return -1;
		}
		if (s->fd < 0 && s->socket.path[0] == '\0') {
			report("--function %s needs socket=PATH or ntb=PATH",
				s->args.function.name);
			return -1;
		}
		if (s->fd < 0 && !socket_path_fits(s->socket.path))
			return -1;
		for (j = 0; s->fd < 0 && j < i; j++) {
			if (strcmp(served[j].socket.path, s->socket.path) == 0) {
				report("%s and %s have the same socket",
					served[j].args.function.name, s->args.function.name);
				return -1;
			}
		}
	}
	return 0;
}

/* ---- their life ---- */

static void
warn_of_peer(const struct served *s)
{
	const char *peer = s->args.net.wiring.peer;
	unsigned int i;

	for (i = 0; i < nb_served && strcmp(served[i].args.function.name, peer) != 0; i++)
		;
	if (peer[0] != '\0' && i == nb_served)
		report("warning: %s: peer=%s names no function: its link is down",
			s->args.function.name, peer);
}

int
functions_open(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < nb_served; i++) {
		struct served *s = &served[i];

		if (s->args.net.queue_size == 0 && !s->host_control)
			s->args.net.queue_size = DEFAULT_QUEUE_SIZE;
		if (s->blk.queue_size == 0)
			s->blk.queue_size = DEFAULT_QUEUE_SIZE;
		s->args.function.class_params = s->is_blk ? (void *)&s->blk : &s->args.net;
		ret = vfn_function_open(&s->args.function, &s->fn, &s->link);
		if (ret == -EBUSY && !s->is_blk) {
			report("%s: peer=%s is taken", s->args.function.name,
				s->args.net.wiring.peer);
			return -1;
		}
		if (ret < 0) {
			report("cannot make function %s: %s", s->args.function.name,
				strerror(-ret));
			return -1;
		}
		warn_of_peer(s);
	}
	return 0;
}

static bool
is_listening(int fd)
{
	int listens = 0;
	socklen_t len = sizeof(listens);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens != 0;
}

static void
bridge_says(void *name, const char *text)
{
	report("%s: %s", (const char *)name, text);
}

static int
serve_bridge(struct served *s)
{
	const struct ntb_sim_params bridge = {
		.name = s->args.function.name,
		.path = s->ntb_path,
		.bus = VFN_NTB_DEVICE_BUS,
		.size = (uint64_t)s->ntb_mb << 20,
		.latency_us = s->latency_us,
		.log = bridge_says,
		.log_arg = s->args.function.name,
	};
	struct vfn_ntb_server_params params = {
		.name = s->args.function.name,
		.offer = s->host_control ? vfn_manage_net_offer : NULL,
	};
	char why[128];
	int ret = ntb_sim_open(&bridge, &s->ntb, why, sizeof(why));

	if (ret == 0) {
		params.ntb = s->ntb;
		ret = vfn_ntb_serve(s->link, s->fn, &params, &s->ntb_server);
		snprintf(why, sizeof(why), "%s", strerror(-ret));
	}
	if (ret < 0) {
		report("cannot serve %s: %s", s->args.function.name, why);
		return -1;
	}
	printf("%s: %s on the bridge at %s\n", program, s->args.function.name, s->ntb_path);
	return 0;
}

static int
serve(struct served *s)
{
	const char *name = s->args.function.name;
	struct vfn_endpoint_params params = {
		.name = name,
		.listen_fd = -1,
		.fd = -1,
		.busy = !s->args.function.pollers.sleep,
		.offer = s->host_control ? vfn_manage_net_offer : NULL,
	};
	int ret;

	if (s->ntb_path[0] != '\0')
		return serve_bridge(s);
	if (s->fd < 0) {
		if (socket_listen(&s->socket, &s->listener) != 0)
			return -1;
		params.listen_fd = s->listener.fd;
	} else if (is_listening(s->fd)) {
		params.listen_fd = s->fd;
	} else {
		params.fd = s->fd;
	}
	ret = vfn_endpoint_open(s->link, s->fn, &params, &s->endpoint);
	if (ret < 0) {
		report("cannot serve %s: %s", name, strerror(-ret));
		return -1;
	}
	printf("%s: %s on %s\n", program, name,
		s->fd < 0 ? s->socket.path : "the socket that it was given");
	return 0;
}

int
serving_begin(void)
{
	unsigned int i;

	for (i = 0; i < nb_served; i++)
		if (serve(&served[i]) != 0)
			return -1;
	return 0;
}

void
functions_close(void)
{
	struct served *all = served;
	unsigned int i, n = nb_served;

	pthread_mutex_lock(&served_lock);
	nb_served = 0;
	served = NULL;
	pthread_mutex_unlock(&served_lock);
	for (i = n; i-- > 0;) {
		if (all[i].listener.fd >= 0)
			socket_remove(all[i].socket.path, &all[i].listener);
		vfn_endpoint_close(all[i].endpoint);
		vfn_ntb_server_close(all[i].ntb_server);
		if (all[i].ntb != NULL)
			ntb_close(all[i].ntb);
	}
	for (i = n; i-- > 0;)
		if (all[i].link != NULL)
			all[i].link->ops->close(all[i].link);
	free(all);
}
