/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Runs in a test guest: sends numbered frames of several flows through an interface whose other
 * end gives them back, and looks at what arrives: "flow eth0 FLOWS WINDOW", until SIGTERM. The
 * window is what a flow has under way at most. Status 0 if, in each flow, every frame came back
 * once, whole and in order. One thread.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

#define MAX_FLOWS 64
#define MAX_FRAME 1514
#define MAGIC	  0x76666e21
#define PORT	  7000
#define PACE_US	  4000 /* the guest is to have time for other things */
#define GIVE_UP_S 10   /* without a frame, once it is to end */

struct frame {
	struct ether_header eth;
	struct ip ip;
	struct udphdr udp;
	uint32_t magic, flow;
	uint64_t seq;
	uint8_t data[];
} __attribute__((packed));

static struct {
	uint64_t sent, expected;
} flows[MAX_FLOWS];
static uint64_t received, lost, again, corrupt, arp;
static volatile sig_atomic_t stop;

static void
on_signal(int number)
{
	(void)number;
	stop = 1;
}

static void
die(const char *what)
{
	perror(what);
	exit(2);
}

/* A frame is known by its flow and number alone. */
static size_t
make(uint8_t *buf, const uint8_t *mac, uint32_t flow, uint64_t seq)
{
	uint64_t mix = (seq * 64 + flow + 1) * UINT64_C(0x9e3779b97f4a7c15);
	/* Most are large: the driver of the card leaves the pages of these as they came. */
	size_t least = seq % 8 == 0 ? 64 : MAX_FRAME - 256;
	size_t len = least + (mix >> 40) % (MAX_FRAME - least + 1), i;
	struct frame *f = (struct frame *)buf;
	uint32_t sum = 0;

	memset(f, 0, sizeof(*f));
	memcpy(f->eth.ether_dhost, mac, ETH_ALEN);
	memcpy(f->eth.ether_shost, mac, ETH_ALEN);
	f->eth.ether_type = htons(ETHERTYPE_IP);
	f->ip.ip_v = 4;
	f->ip.ip_hl = 5;
	f->ip.ip_len = htons(len - sizeof(f->eth));
	f->ip.ip_ttl = 64;
	f->ip.ip_p = IPPROTO_UDP;
	f->ip.ip_src.s_addr = htonl(0xc0000201);
	f->ip.ip_dst.s_addr = htonl(0xc0000202);
	for (i = 0; i < sizeof(f->ip); i += 2)
		sum += *(uint16_t *)((uint8_t *)&f->ip + i);
	sum = (sum & 0xffff) + (sum >> 16);
	f->ip.ip_sum = ~(sum + (sum >> 16));
	f->udp.uh_sport = f->udp.uh_dport = htons(PORT + flow);
	f->udp.uh_ulen = htons(len - sizeof(f->eth) - sizeof(f->ip));
	f->magic = MAGIC;
	f->flow = flow;
	f->seq = seq;
	for (i = sizeof(*f); i < len; i++) {
		mix ^= mix << 13;
		mix ^= mix >> 7;
		mix ^= mix << 17;
		buf[i] = mix;
	}
	return len;
}

static void
look_at(const uint8_t *buf, size_t len, unsigned int nb_flows)
{
	const struct frame *f = (const struct frame *)buf;
	uint8_t want[MAX_FRAME];

	if (len >= sizeof(f->eth) && f->eth.ether_type == htons(ETHERTYPE_ARP))
		arp++;
	if (len < sizeof(*f) || f->eth.ether_type != htons(ETHERTYPE_IP) || f->magic != MAGIC)
		return;
	if (f->flow >= nb_flows || f->seq >= flows[f->flow].sent ||
		make(want, f->eth.ether_shost, f->flow, f->seq) != len ||
		memcmp(want, buf, len) != 0) {
		corrupt++;
		return;
	}
	if (f->seq < flows[f->flow].expected) {
		again++;
		return;
	}
	lost += f->seq - flows[f->flow].expected;
	flows[f->flow].expected = f->seq + 1;
	received++;
}

static int
open_on(const char *name, uint8_t *mac)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	/* Nothing is heard before it is bound, for that would be what other interfaces have. */
	int fd = socket(AF_PACKET, SOCK_RAW, 0), room = 64 << 20, one = 1;
	struct ifreq ifr = {0};

	if (fd < 0)
		die("socket");
	strncpy(ifr.ifr_name, name, sizeof(ifr.ifr_name) - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &ifr) < 0)
		die(name);
	memcpy(mac, ifr.ifr_hwaddr.sa_data, ETH_ALEN);
	addr.sll_ifindex = if_nametoindex(name);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0 ||
		setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
		bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("socket options");
	return fd;
}

/*
 * A second address space to switch to and fro, for which QEMU's TCG empties its TLB. Else a page
 * that the CPU writes all the time may be lost when the guest migrates: helper and migration
 * thread race for the TLB's note that the page is dirty already, which then stays.
 */
static void
keep_switching(void)
{
	if (fork() != 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		usleep(1000);
}

int
main(int argc, char **argv)
{
	unsigned int nb_flows = argc == 4 ? atoi(argv[2]) : 0, i;
	unsigned int window = argc == 4 ? atoi(argv[3]) : 0;
	struct tpacket_stats stats = {0};
	socklen_t size = sizeof(stats);
	uint8_t mac[ETH_ALEN], buf[2048];
	uint64_t sent = 0, under_way = 0;
	time_t last = time(NULL);
	int fd;

	if (nb_flows < 1 || nb_flows > MAX_FLOWS || window < 1)
		return 2;
	keep_switching();
	signal(SIGTERM, on_signal);
	fd = open_on(argv[1], mac);
	while (!stop || under_way > 0) {
		ssize_t len;

		while ((len = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
			look_at(buf, len, nb_flows);
			last = time(NULL);
		}
		/* Until then whoever gives them back may be away for as long as it takes. */
		if (!stop)
			last = time(NULL);
		under_way = 0;
		for (i = 0; i < nb_flows; i++) {
			while (!stop && flows[i].sent - flows[i].expected < window) {
				size_t n = make(buf, mac, i, flows[i].sent);

				if (send(fd, buf, n, MSG_DONTWAIT) != (ssize_t)n)
					break;
				flows[i].sent++;
				sent++;
			}
			under_way += flows[i].sent - flows[i].expected;
		}
		if (time(NULL) - last > GIVE_UP_S)
			break;
		usleep(PACE_US);
	}
	lost += under_way;
	getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size);
	printf("sent %lu received %lu lost %lu again %lu corrupt %lu unread %u arp %lu\n", sent,
		received, lost, again, corrupt, stats.tp_drops, arp);
	return lost + again + corrupt > 0 || received == 0;
}
