/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fuzzer of lib/vfio_user's server: messages into it from a client that is this file, on the
 * target's thread, and a device that is a judge of what the server asks of it (vfu_device.c), on a
 * thread of its own. What the client gets is judged, too.
 */

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/vfu_device.h"
#include "fuzz_vfu.h"

#define TIMEOUT_MS  20000 /* of the server: no wait of it is meant to end so */
#define MAX_WAITING 256	  /* replies */

static struct vfu_dev dev;
static int fds[VFU_FD_MAX];

/* The client. */
static struct {
	int fd;
	bool over; /* the server has hung up, or nothing more is to be said */
	uint8_t answer;
	struct vfu_header waiting[MAX_WAITING];
	unsigned int first, last;
} client;

static uint64_t
value(const struct vfu_fuzz_message *r, unsigned int i)
{
	static const uint64_t base[VFU_V_MAX] = {
		[VFU_V_PAGE] = 4096,
		[VFU_V_MAP] = 0x40000000,
		[VFU_V_MAP_2] = 0x80000000,
		[VFU_V_XFER] = VFU_MAX_XFER,
		[VFU_V_2_32] = UINT64_C(1) << 32,
		[VFU_V_2_63] = UINT64_C(1) << 63,
		[VFU_V_TOP] = UINT64_MAX,
		[VFU_V_GET] = VFIO_DEVICE_FEATURE_GET,
		[VFU_V_SET] = VFIO_DEVICE_FEATURE_SET,
		[VFU_V_PROBE] = VFIO_DEVICE_FEATURE_PROBE,
		[VFU_V_SPARSE] = VD_SPARSE_SIZE,
		[VFU_V_REGS] = VD_REGS_SIZE,
		[VFU_V_DATA] = VD_DATA,
	};
	const struct vfu_fuzz_value *v = &r->value[i % VFU_FUZZ_VALUES];

	return base[v->base % VFU_V_MAX] + ((uint64_t)(int64_t)v->add << v->shift % 48);
}

/* ---- what the client says ---- */

static void
send_all(const uint8_t *bytes, size_t len, const int *with, unsigned int nb_with, bool pieces)
{
	union {
		char bytes[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr header;
	} control = {{0}};
	struct iovec iov = {(void *)(uintptr_t)bytes, 0};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (nb_with > 0) {
		hdr.msg_control = &control;
		hdr.msg_controllen = CMSG_SPACE(nb_with * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(nb_with * sizeof(int));
		memcpy(CMSG_DATA(&control.header), with, nb_with * sizeof(int));
	}
	while (len > 0 && !client.over) {
		iov.iov_len = pieces ? 1 : len;
		n = sendmsg(client.fd, &hdr, MSG_NOSIGNAL);
		client.over = n < 0 && errno != EINTR;
		if (n < 0)
			continue;
		hdr.msg_control = NULL;
		hdr.msg_controllen = 0;
		iov.iov_base = (uint8_t *)iov.iov_base + n;
		len -= n;
	}
}

/* Into payload; returns its length. Of commands with data these are appended by the caller. */
static size_t
fill(const struct vfu_fuzz_message *r, uint16_t command, uint8_t *payload, uint32_t count)
{
	const uint32_t argsz = (r->flags & VFU_FUZZ_ARGSZ) != 0 ? value(r, 6) : UINT32_MAX;
	union {
		struct vfu_version version;
		struct vfu_dma_map map;
		struct vfu_dma_unmap unmap;
		struct vfio_region_info region;
		struct vfu_region_io_fds four; /* words: argsz, flags, index, count */
		struct vfu_irq_set set;
		struct vfu_region_access access;
		uint64_t writes;
		struct vfu_feature feature;
		struct vfu_mig_data data;
	} p = {{0}};
	size_t len = 0;

	switch (command) {
	case VFU_VERSION:
		p.version = (struct vfu_version){value(r, 0), value(r, 1)};
		len = sizeof(p.version);
		break;
	case VFU_DMA_MAP:
		p.map = (struct vfu_dma_map){
			argsz, value(r, 3), value(r, 2), value(r, 0), value(r, 1)};
		len = sizeof(p.map);
		break;
	case VFU_DMA_UNMAP:
		p.unmap = (struct vfu_dma_unmap){argsz, value(r, 3), value(r, 0), value(r, 1)};
		len = sizeof(p.unmap);
		break;
	case VFU_DEVICE_GET_REGION_INFO:
		p.region = (struct vfio_region_info){.argsz = argsz, .index = value(r, 0)};
		len = sizeof(p.region);
		break;
	case VFU_DEVICE_GET_INFO:
	case VFU_DEVICE_GET_REGION_IO_FDS:
	case VFU_DEVICE_GET_IRQ_INFO:
		p.four = (struct vfu_region_io_fds){argsz, value(r, 1), value(r, 0), value(r, 2)};
		len = sizeof(p.four);
		break;
	case VFU_DEVICE_SET_IRQS:
		p.set = (struct vfu_irq_set){
			argsz, value(r, 1), value(r, 0), value(r, 2), value(r, 3)};
		len = sizeof(p.set);
		break;
	case VFU_REGION_READ:
	case VFU_REGION_WRITE:
		if (command == VFU_REGION_READ)
			count = value(r, 2);
		p.access = (struct vfu_region_access){value(r, 1), value(r, 0), count};
		len = sizeof(p.access);
		break;
	case VFU_REGION_WRITE_MULTI:
		p.writes = count / sizeof(struct vfu_region_write);
		len = sizeof(p.writes);
		break;
	case VFU_DEVICE_FEATURE:
		p.feature = (struct vfu_feature){argsz, value(r, 0)};
		len = sizeof(p.feature);
		break;
	case VFU_MIG_DATA_READ:
	case VFU_MIG_DATA_WRITE:
		if (command == VFU_MIG_DATA_READ)
			count = value(r, 1);
		p.data = (struct vfu_mig_data){argsz, count};
		len = sizeof(p.data);
		break;
	default:
		break;
	}
	memcpy(payload, &p, len);
	/* What a feature has behind its head, in words. */
	if (command == VFU_DEVICE_FEATURE)
		for (count = 1; count <= (r->data_len & 7); count++) {
			const uint64_t word = value(r, count);

			memcpy(payload + len, &word, sizeof(word));
			len += sizeof(word);
		}
	return len;
}

static bool
has_data(uint16_t command)
{
	return command == VFU_VERSION || command == VFU_DEVICE_SET_IRQS ||
		command == VFU_REGION_WRITE || command == VFU_REGION_WRITE_MULTI ||
		command == VFU_MIG_DATA_WRITE;
}

static void
say(const struct vfu_fuzz_message *r)
{
	static uint8_t bytes[VFU_MAX_MESSAGE + 0x10000];
	struct vfu_header h = {.id = client.last, .command = r->command % (VFU_COMMAND_MAX + 3)};
	const unsigned int nb_with = r->nb_fds % (VFU_MAX_FDS + 18);
	const bool pending = client.first < client.last || (r->flags & VFU_FUZZ_BURST) != 0;
	size_t len, i, data = has_data(h.command) ? r->data_len & (pending ? 0xfff : 0xffff) : 0;
	int with[VFU_MAX_FDS + 18];

	for (i = 0; i < nb_with; i++)
		with[i] = fds[r->fd_kind % VFU_FD_MAX];
	len = sizeof(h) +
		fill(r, h.command, bytes + sizeof(h),
			(r->flags & VFU_FUZZ_COUNT) != 0 ? value(r, 5) : data);
	for (i = 0; i < data; i++)
		bytes[len++] = r->data[i % sizeof(r->data)];
	if ((r->flags & VFU_FUZZ_SHORT) != 0 &&
		(r->more > 0 || (size_t)-r->more <= len - sizeof(h)))
		len += r->more;
	h.size = (r->flags & VFU_FUZZ_SIZE) != 0 ? value(r, 7) : len;
	h.flags = (r->flags & VFU_FUZZ_TYPE) != 0   ? value(r, 7) :
		(r->flags & VFU_FUZZ_NO_REPLY) != 0 ? VFU_NO_REPLY :
						      0;
	memcpy(bytes, &h, sizeof(h));
	if ((h.flags & (VFU_NO_REPLY | VFU_TYPE_MASK)) == 0)
		client.waiting[client.last++ % MAX_WAITING] = h;
	/* No more than the header says, or it would be other messages; less is the last of them. */
	if (h.size < len)
		len = h.size > sizeof(h) ? h.size : sizeof(h);
	send_all(bytes, len, with, nb_with,
		(r->flags & VFU_FUZZ_PIECES) != 0 && len < 256 && !pending);
	if (h.size != len) {
		shutdown(client.fd, SHUT_WR);
		client.over = true;
	}
}

/* ---- what it hears ---- */

/* Of the server's own; the answer is as the record says. */
static void
answer(const struct vfu_header *h, const uint8_t *payload)
{
	static uint8_t bytes[VFU_MAX_MESSAGE + 8];
	struct vfu_header mine = {h->id, h->command, 0, VFU_TYPE_REPLY, 0};
	struct vfu_dma_access a;

	memcpy(&a, payload, sizeof(a));
	CHECK(h->command == VFU_DMA_READ || h->command == VFU_DMA_WRITE);
	CHECK(a.count > 0 && a.count <= VFU_MAX_XFER);
	CHECK(h->size == sizeof(*h) + sizeof(a) + (h->command == VFU_DMA_READ ? 0 : a.count));
	mine.size = sizeof(mine) + sizeof(a) + (h->command == VFU_DMA_READ ? a.count : 0);
	switch (client.answer % VFU_ANSWER_MAX) {
	case VFU_ANSWER_ERROR:
		mine.flags |= VFU_ERROR;
		mine.error = a.address;
		mine.size = sizeof(mine);
		break;
	case VFU_ANSWER_ID:
		mine.id++;
		break;
	case VFU_ANSWER_SIZE:
		mine.size++;
		break;
	case VFU_ANSWER_COUNT:
		a.count++;
		break;
	case VFU_ANSWER_LEAVE:
		mine.size /= 2;
		break;
	default:
		break;
	}
	memcpy(bytes, &mine, sizeof(mine));
	memcpy(bytes + sizeof(mine), &a, sizeof(a));
	send_all(bytes, mine.size, NULL, 0, false);
	if (client.answer % VFU_ANSWER_MAX == VFU_ANSWER_LEAVE) {
		shutdown(client.fd, SHUT_WR);
		client.over = true;
	}
}

static void
reply(const struct vfu_header *h, unsigned int nb_got)
{
	const struct vfu_header *w = &client.waiting[client.first++ % MAX_WAITING];

	CHECK(client.first <= client.last);
	CHECK(h->id == w->id && h->command == w->command);
	CHECK((h->flags & ~(uint32_t)VFU_ERROR) == VFU_TYPE_REPLY);
	CHECK((h->flags & VFU_ERROR) == 0 ||
		(h->error > 0 && h->size == sizeof(*h) && nb_got == 0));
	CHECK((h->flags & VFU_ERROR) != 0 || h->error == 0);
	CHECK(nb_got <= VFU_MAX_FDS);
}

/* libFuzzer's timer interrupts: MSG_WAITALL does not wait for all then. */
static bool
take(void *bytes, size_t len)
{
	size_t have;
	ssize_t n;

	for (have = 0; have<len; have += n> 0 ? n : 0) {
		n = recv(client.fd, (uint8_t *)bytes + have, len - have, 0);
		if (n == 0 || (n < 0 && errno != EINTR))
			return false;
	}
	return true;
}

/* One message, if there is any; false: nothing comes any more. */
static bool
hear(void)
{
	static uint8_t payload[VFU_MAX_PAYLOAD];
	union {
		char bytes[CMSG_SPACE((VFU_MAX_FDS + 1) * sizeof(int))];
		struct cmsghdr header;
	} control;
	struct vfu_header h;
	struct iovec iov = {&h, sizeof(h)};
	struct msghdr hdr = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};
	unsigned int i, nb_got = 0;
	ssize_t n;
	int got;

	do
		n = recvmsg(client.fd, &hdr, 0);
	while (n < 0 && errno == EINTR);
	if (n <= 0 || !take((uint8_t *)&h + n, sizeof(h) - n))
		return false;
	if (hdr.msg_controllen > 0)
		nb_got = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (i = 0; i < nb_got; i++) {
		memcpy(&got, CMSG_DATA(&control.header) + i * sizeof(int), sizeof(int));
		close(got);
	}
	CHECK(h.size >= sizeof(h) && h.size <= VFU_MAX_MESSAGE);
	if (!take(payload, h.size - sizeof(h)))
		return false;
	if ((h.flags & VFU_TYPE_MASK) == VFU_TYPE_COMMAND)
		answer(&h, payload);
	else
		reply(&h, nb_got);
	return true;
}

/* Until everything is answered; or, at the end, until the server has hung up. */
static void
hear_all(bool end)
{
	while (end || client.first < client.last)
		if (!hear()) {
			client.over = true;
			break;
		}
}

/* ---- an input ---- */

static void *
serve(void *arg)
{
	int *fd = arg;

	CHECK(vfu_serve(dev.server, -1, *fd, -1) == 0);
	return NULL;
}

static unsigned int
open_fds(void)
{
	unsigned int n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void
open_device(void)
{
	int pair[2];

	vfu_timeout_ms = TIMEOUT_MS;
	/* The device writes to what it was given for an eventfd. */
	signal(SIGPIPE, SIG_IGN);
	vd_open(&dev, 0);
	dev.ops.log = getenv("FUZZ_TRACE") != NULL ? dev.ops.log : NULL;
	setenv("VFU_TRACE", "1", 1);
	fds[VFU_FD_MEMORY] = memfd_create("fuzz", MFD_CLOEXEC);
	CHECK(ftruncate(fds[VFU_FD_MEMORY], 0x10000) == 0);
	fds[VFU_FD_EVENT] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	fds[VFU_FD_SOCKET] = pair[0];
	close(pair[1]);
}

static void
version(const struct vfu_fuzz_head *head)
{
	struct {
		struct vfu_header h;
		struct vfu_version v;
		char json[128];
	} m = {{0xffff, VFU_VERSION, 0, 0, 0}, {VFU_MAJOR, VFU_MINOR}, ""};

	m.h.size = sizeof(m.h) + sizeof(m.v) + 1 +
		snprintf(m.json, sizeof(m.json),
			"{\"capabilities\":{\"max_msg_fds\":%d,\"max_data_xfer_size\":%d,"
			"\"write_multiple\":true}}",
			head->flags & VFU_FUZZ_ONE_FD ? 1 : 16,
			head->flags & VFU_FUZZ_ONE_BYTE ? 64 : VFU_MAX_XFER);
	client.waiting[client.last++] = m.h;
	send_all((const uint8_t *)&m, m.h.size, NULL, 0, false);
	hear_all(false);
	CHECK(!client.over);
}

static void
messages(const struct vfu_fuzz_head *head, const uint8_t *data, size_t size)
{
	struct vfu_fuzz_message r;
	unsigned int i;

	for (i = 0; i < VFU_FUZZ_MESSAGES && (i + 1) * sizeof(r) <= size && !client.over; i++) {
		memcpy(&r, data + i * sizeof(r), sizeof(r));
		client.answer = r.answer;
		if (head->fail != 0 && i % head->fail == head->fail - 1u &&
			client.first == client.last)
			dev.fail = -EIO;
		say(&r);
		/* A burst is no longer than what the server takes while it waits for an answer. */
		if ((r.flags & VFU_FUZZ_BURST) == 0 || client.last - client.first > 8)
			hear_all(false);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfu_fuzz_head head;
	pthread_t thread;
	unsigned int before, tries;
	int pair[2];

	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	if (dev.server == NULL)
		open_device();
	before = open_fds();
	memset(dev.regs, 0, VD_REG_GO + 8);
	dev.fail = 0;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	memset(&client, 0, sizeof(client));
	client.fd = pair[1];
	CHECK(pthread_create(&thread, NULL, serve, &pair[0]) == 0);
	if ((head.flags & VFU_FUZZ_NO_VERSION) == 0)
		version(&head);
	if ((head.flags & VFU_FUZZ_RAW) != 0)
		send_all(data + sizeof(head), size - sizeof(head), NULL, 0, false);
	else
		messages(&head, data + sizeof(head), size - sizeof(head));
	shutdown(client.fd, SHUT_WR);
	/* Replies to bytes that were no messages are not known. */
	while ((head.flags & VFU_FUZZ_RAW) != 0) {
		uint8_t rest[4096];
		ssize_t n = recv(client.fd, rest, sizeof(rest), 0);

		if (n == 0 || (n < 0 && errno != EINTR))
			break;
	}
	hear_all(true);
	pthread_join(thread, NULL);
	close(client.fd);
	/* Nothing is left of the client. */
	CHECK(dev.attached == dev.detached);
	CHECK(dev.nb_maps == 0 && !dev.logging);
	CHECK(dev.server->fd == -1 && dev.server->nb_early == 0 && dev.server->nb_maps == 0);
	/* what is closed by a thread of its own too */
	for (tries = 0; vfn_closer_waiting(dev.server->closer) > 0; tries++) {
		CHECK(tries < 100000);
		usleep(100);
	}
	CHECK(open_fds() == before);
	return 0;
}
