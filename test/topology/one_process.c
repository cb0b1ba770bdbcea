/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Both ends of a vhost-user socket in one process: a vDPA device behind it, a hot-plugged
 * virtio-user port in front. Packets with known bytes go out of the port, through the looped-back
 * function and back; every byte and their order is compared. All of it runs on the main thread;
 * librte_vhost's own thread answers the handshake, the function's poller moves the packets.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_vdpa.h>
#include <rte_vhost.h>

#define VIRTIO_USER "net_virtio_user0"
#define BURST	    32
#define MAX_SIZE    9216
#define MIN_SIZE    60
#define NB_STATS    64
#define PATIENCE_S  20 /**< without a packet for so long: given up */

struct options {
	const char *device; /**< name of the vDPA device */
	const char *echo;   /**< name of an ethdev to loop instead: the control without vDPA */
	const char *socket;
	const char *virtio; /**< further device arguments of the virtio-user port */
	uint64_t packets;
	uint64_t corrupt; /**< number of a packet to spoil before it is compared, or never */
	uint64_t seed;
	uint32_t max_size;
	uint32_t window; /**< packets in flight at most */
};

struct counts {
	uint64_t sent;
	uint64_t received;
	uint64_t bytes;
};

static struct options opt = {
	.virtio = "",
	.packets = 1000000,
	.corrupt = UINT64_MAX,
	.seed = 1,
	.max_size = 1514,
	.window = 256,
};

static const struct option long_options[] = {
	{"device", required_argument, NULL, 'd'},
	{"echo", required_argument, NULL, 'e'},
	{"socket", required_argument, NULL, 's'},
	{"virtio", required_argument, NULL, 'v'},
	{"packets", required_argument, NULL, 'n'},
	{"corrupt", required_argument, NULL, 'c'},
	{"seed", required_argument, NULL, 'r'},
	{"max-size", required_argument, NULL, 'm'},
	{"window", required_argument, NULL, 'w'},
	{NULL, 0, NULL, 0},
};

static int
parse_options(int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'd':
			opt.device = optarg;
			break;
		case 'e':
			opt.echo = optarg;
			break;
		case 's':
			opt.socket = optarg;
			break;
		case 'v':
			opt.virtio = optarg;
			break;
		case 'n':
			opt.packets = strtoull(optarg, NULL, 0);
			break;
		case 'c':
			opt.corrupt = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			opt.seed = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			opt.max_size = strtoul(optarg, NULL, 0);
			break;
		case 'w':
			opt.window = strtoul(optarg, NULL, 0);
			break;
		default:
			return -EINVAL;
		}
	}
	if (opt.socket == NULL || (opt.device == NULL) == (opt.echo == NULL) ||
		opt.max_size < MIN_SIZE || opt.max_size > MAX_SIZE)
		return -EINVAL;
	return 0;
}

/* splitmix64: every seed gives a good sequence, also the neighbour's */
static uint64_t
next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

/** Fill buf, of MAX_SIZE + 8 bytes, with packet `number`; return its length. */
static uint32_t
make_packet(uint64_t number, uint8_t *buf)
{
	uint64_t state = opt.seed * 0x2545f4914f6cdd1d + number, word;
	uint32_t at, len = MIN_SIZE + next_random(&state) % (opt.max_size - MIN_SIZE + 1);

	for (at = 0; at < len; at += sizeof(word)) {
		word = next_random(&state);
		memcpy(buf + at, &word, sizeof(word));
	}
	return len;
}

/** Packet `number` as a chain of as many mbufs as it takes; NULL if there are none left. */
static struct rte_mbuf *
packet_to_mbuf(struct rte_mempool *pool, uint64_t number)
{
	static uint8_t buf[MAX_SIZE + 8];
	uint32_t at = 0, len = make_packet(number, buf);
	struct rte_mbuf *head = NULL, *m;
	uint16_t part;

	while (at < len) {
		m = rte_pktmbuf_alloc(pool);
		if (m == NULL || (head != NULL && rte_pktmbuf_chain(head, m) < 0)) {
			rte_pktmbuf_free(m);
			rte_pktmbuf_free(head);
			return NULL;
		}
		if (head == NULL)
			head = m;
		part = RTE_MIN(len - at, (uint32_t)rte_pktmbuf_tailroom(m));
		memcpy(rte_pktmbuf_append(head, part), buf + at, part);
		at += part;
	}
	return head;
}

/** Is this packet `number`, whole and unchanged? Says on stderr what is wrong. */
static bool
compare(struct rte_mbuf *m, uint64_t number)
{
	static uint8_t expected[MAX_SIZE + 8], got[MAX_SIZE + 8];
	uint32_t at, len = make_packet(number, expected);
	const uint8_t *data;

	if (m->pkt_len != len) {
		fprintf(stderr, "packet %" PRIu64 ": %u bytes instead of %u\n", number, m->pkt_len,
			len);
		return false;
	}
	if (number == opt.corrupt)
		rte_pktmbuf_mtod(m, uint8_t *)[len / 2 % m->data_len] ^= 1;
	data = rte_pktmbuf_read(m, 0, len, got);
	if (data != NULL && memcmp(data, expected, len) == 0)
		return true;
	for (at = 0; data != NULL && at < len && data[at] == expected[at]; at++)
		;
	fprintf(stderr, "packet %" PRIu64 ": byte %u of %u is wrong\n", number, at, len);
	return false;
}

/** Send, receive and compare until every packet is back. */
static int
exchange(uint16_t port, struct rte_mempool *pool, struct counts *n)
{
	uint64_t last = rte_get_timer_cycles(), patience = PATIENCE_S * rte_get_timer_hz();
	struct rte_mbuf *tx[BURST], *rx[BURST];
	uint16_t nb_tx = 0, nb_rx, done, i;
	uint64_t made = 0;

	while (n->received < opt.packets) {
		while (nb_tx < BURST && made < opt.packets && made - n->received < opt.window) {
			tx[nb_tx] = packet_to_mbuf(pool, made);
			if (tx[nb_tx] == NULL)
				break;
			nb_tx++;
			made++;
		}
		done = rte_eth_tx_burst(port, 0, tx, nb_tx);
		memmove(tx, tx + done, (nb_tx - done) * sizeof(tx[0]));
		nb_tx -= done;
		n->sent += done;

		nb_rx = rte_eth_rx_burst(port, 0, rx, BURST);
		for (i = 0; i < nb_rx; i++) {
			if (!compare(rx[i], n->received)) {
				rte_pktmbuf_free_bulk(rx + i, nb_rx - i);
				rte_pktmbuf_free_bulk(tx, nb_tx);
				return -EBADMSG;
			}
			n->received++;
			n->bytes += rx[i]->pkt_len;
			rte_pktmbuf_free(rx[i]);
		}
		if (nb_rx > 0 || done > 0) {
			last = rte_get_timer_cycles();
			continue;
		}
		sched_yield(); /* the other end may share this CPU */
		if (rte_get_timer_cycles() - last > patience) {
			fprintf(stderr,
				"nothing for %u s: %" PRIu64 " sent, %" PRIu64 " received\n",
				PATIENCE_S, n->sent, n->received);
			rte_pktmbuf_free_bulk(tx, nb_tx);
			return -ETIMEDOUT;
		}
	}
	return 0;
}

static int
new_device(int vid)
{
	uint64_t features = 0;

	rte_vhost_get_negotiated_features(vid, &features);
	printf("connected, features 0x%" PRIx64 ", %u rings\n", features,
		rte_vhost_get_vring_num(vid));
	return 0;
}

static void
destroy_device(int vid)
{
	(void)vid;
	printf("disconnected\n");
}

static const struct rte_vhost_device_ops vhost_ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
};

static int
serve_vdpa(struct rte_vdpa_device *dev)
{
	if (rte_vhost_driver_register(opt.socket, 0) < 0)
		return -1;
	if (rte_vhost_driver_callback_register(opt.socket, &vhost_ops) < 0 ||
		rte_vhost_driver_attach_vdpa_device(opt.socket, dev) < 0 ||
		rte_vhost_driver_start(opt.socket) < 0) {
		rte_vhost_driver_unregister(opt.socket);
		return -1;
	}
	return 0;
}

/* Receive and transmit on ring pair 0 of an ethdev, until told to end. */
static bool echo_end; /* atomic */

static void *
echo_loop(void *arg)
{
	uint16_t port = *(const uint16_t *)arg, nb_rx, nb_tx;
	struct rte_mbuf *m[BURST];

	while (!__atomic_load_n(&echo_end, __ATOMIC_RELAXED)) {
		nb_rx = rte_eth_rx_burst(port, 0, m, BURST);
		if (nb_rx == 0)
			sched_yield();
		nb_tx = 0;
		while (nb_tx < nb_rx && !__atomic_load_n(&echo_end, __ATOMIC_RELAXED))
			nb_tx += rte_eth_tx_burst(port, 0, m + nb_tx, nb_rx - nb_tx);
		rte_pktmbuf_free_bulk(m + nb_tx, nb_rx - nb_tx);
	}
	return NULL;
}

static int
start_port(const char *name, struct rte_mempool *pool, uint16_t *port)
{
	struct rte_eth_conf conf = {0};

	if (rte_eth_dev_get_port_by_name(name, port) < 0 ||
		rte_eth_dev_configure(*port, 1, 1, &conf) < 0 ||
		rte_eth_rx_queue_setup(*port, 0, 1024, SOCKET_ID_ANY, NULL, pool) < 0 ||
		rte_eth_tx_queue_setup(*port, 0, 1024, SOCKET_ID_ANY, NULL) < 0 ||
		rte_eth_dev_start(*port) < 0) {
		fprintf(stderr, "cannot start port %s\n", name);
		return -1;
	}
	return 0;
}

static void
print_stats(struct rte_vdpa_device *dev)
{
	struct rte_vdpa_stat_name names[NB_STATS];
	struct rte_vdpa_stat stats[NB_STATS];
	int i, n, queue;

	if (rte_vdpa_get_stats_names(dev, names, NB_STATS) <= 0)
		return;
	for (queue = 0; queue < 2; queue++) {
		printf("\tVirtq %d:\n", queue);
		n = rte_vdpa_get_stats(dev, queue, stats, NB_STATS);
		for (i = 0; i < n; i++)
			printf("\t\t%s %" PRIu64 "\n", names[stats[i].id].name, stats[i].value);
	}
}

/** Unplugging the vDPA device is refused while a front-end has it, and does it no harm. */
static int
remove_device(bool attached)
{
	int ret = rte_eal_hotplug_remove("vdev", opt.device);

	if (ret == (attached ? -EBUSY : 0))
		return 0;
	fprintf(stderr, "unplugging %s %s: %d\n", opt.device, attached ? "in use" : "at the end",
		ret);
	return -1;
}

/** Plug the virtio-user port into the socket, exchange the packets, unplug it again. */
static int
run_front_end(struct rte_vdpa_device *dev, struct rte_mempool *pool)
{
	struct counts n = {0};
	char args[512];
	uint16_t port;
	int ret;

	snprintf(args, sizeof(args), "path=%s,queues=1,queue_size=1024%s", opt.socket, opt.virtio);
	ret = rte_eal_hotplug_add("vdev", VIRTIO_USER, args);
	if (ret < 0) {
		fprintf(stderr, "cannot plug %s in: %s\n", VIRTIO_USER, strerror(-ret));
		return ret;
	}
	ret = start_port(VIRTIO_USER, pool, &port);
	if (ret == 0 && dev != NULL)
		ret = remove_device(true);
	if (ret == 0) {
		ret = exchange(port, pool, &n);
		if (dev != NULL)
			print_stats(dev);
		printf("%" PRIu64 " packets sent, %" PRIu64 " received, %" PRIu64 " bytes equal\n",
			n.sent, n.received, n.bytes);
		rte_eth_dev_stop(port);
	}
	if (rte_eal_hotplug_remove("vdev", VIRTIO_USER) < 0) {
		fprintf(stderr, "cannot unplug %s\n", VIRTIO_USER);
		ret = -1;
	}
	return ret;
}

static int
run(void)
{
	struct rte_vdpa_device *dev = NULL;
	struct rte_mempool *pool;
	uint16_t echo_port = 0;
	pthread_t echo;
	int ret;

	pool = rte_pktmbuf_pool_create(
		"packets", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (pool == NULL) {
		fprintf(stderr, "no memory for the packets\n");
		return -ENOMEM;
	}
	if (opt.echo != NULL) {
		if (start_port(opt.echo, pool, &echo_port) < 0 ||
			pthread_create(&echo, NULL, echo_loop, &echo_port) != 0)
			return -1;
		ret = run_front_end(NULL, pool);
		__atomic_store_n(&echo_end, true, __ATOMIC_RELAXED);
		pthread_join(echo, NULL);
		rte_eth_dev_stop(echo_port);
		rte_eth_dev_close(echo_port);
	} else {
		dev = rte_vdpa_find_device_by_name(opt.device);
		if (dev == NULL || serve_vdpa(dev) < 0) {
			fprintf(stderr, "cannot serve %s on %s\n", opt.device, opt.socket);
			return -ENODEV;
		}
		ret = run_front_end(dev, pool);
		if (rte_vhost_driver_unregister(opt.socket) < 0) {
			fprintf(stderr, "cannot unregister %s\n", opt.socket);
			ret = -1;
		}
		if (remove_device(false) < 0)
			ret = -1;
	}
	if (rte_mempool_in_use_count(pool) != 0) {
		fprintf(stderr, "%u packet buffers are missing\n", rte_mempool_in_use_count(pool));
		ret = -1;
	}
	rte_mempool_free(pool);
	return ret;
}

int
main(int argc, char **argv)
{
	int ret;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ret = rte_eal_init(argc, argv);
	if (ret < 0) {
		fprintf(stderr, "EAL does not start\n");
		return EXIT_FAILURE;
	}
	ret = parse_options(argc - ret, argv + ret);
	if (ret < 0)
		fprintf(stderr,
			"usage: one_process [EAL options] -- --socket PATH "
			"{--device NAME | --echo PORT} [--virtio ARGS] [--packets N] [--seed N] "
			"[--max-size BYTES] [--window N] [--corrupt N]\n");
	else
		ret = run();
	rte_eal_cleanup();
	return ret == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
