/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Between lib/vfio_user's client and a server that is right: a thread that changes what the server
 * says. And every call of the client by a number.
 */

#ifndef VFU_PROXY_H
#define VFU_PROXY_H

#include "vfu_tests.h"

#define ALL UINT32_MAX

/* What is done to a reply. */
static struct plan {
	unsigned int number;  /* of the reply: 0 is the version's */
	uint32_t cut;	      /* bytes of it that are sent, and then hung up; ALL */
	bool swallow;	      /* it is not sent, nor hung up */
	bool flood;	      /* commands are sent instead, without an end */
	unsigned int late_ms; /* and all that follow */
	bool drop_fds;
	unsigned int more_fds;
	int slow_fd;	/* is one more, and the peer has the last one; 0: none */
	int32_t longer; /* bytes of the payload, with the header's size */
	/* That many bytes of the message are set, at that place. */
	struct {
		uint32_t at, len;
		uint64_t value;
	} set[3];
} plan;

static struct {
	pthread_t thread;
	int listen_fd;
	char path[80];
	atomic_bool stop;
	size_t size; /* of the last reply that the plan was for, as the server sent it */
} proxy;

static bool
take(int fd, uint8_t *bytes, int *fds, unsigned int *nb_fds)
{
	union {
		char bytes[CMSG_SPACE(VFU_MAX_FDS * sizeof(int))];
		struct cmsghdr header;
	} control;
	struct vfu_header *h = (struct vfu_header *)bytes;
	struct iovec iov = {bytes, sizeof(*h)};
	struct msghdr hdr = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control)};

	*nb_fds = 0;
	if (recvmsg(fd, &hdr, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(*h))
		return false;
	if (hdr.msg_controllen > 0) {
		*nb_fds = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(&control.header), *nb_fds * sizeof(int));
	}
	return h->size == sizeof(*h) ||
		recv(fd, h + 1, h->size - sizeof(*h), MSG_WAITALL) ==
		(ssize_t)(h->size - sizeof(*h));
}

static void
flood(int fd)
{
	const struct {
		struct vfu_header h;
		struct vfu_dma_access a;
	} m = {{1, VFU_DMA_READ, sizeof(m), VFU_NO_REPLY, 0}, {0, 8}};

	while (vt_try_send(fd, (const uint8_t *)&m, sizeof(m), NULL, 0))
		;
}

/* One reply; false: nothing may follow. */
static bool
pass(int fd, uint8_t *bytes, int *fds, unsigned int nb_fds, bool planned)
{
	struct vfu_header *h = (struct vfu_header *)bytes;
	int all[64];
	unsigned int i;
	size_t len;

	if (!planned)
		return vt_try_send(fd, bytes, h->size, fds, nb_fds);
	proxy.size = h->size;
	if (plan.swallow)
		return true;
	if (plan.flood) {
		flood(fd);
		return false;
	}
	if (plan.drop_fds)
		nb_fds = 0;
	for (i = 0; i < plan.more_fds; i++)
		fds[nb_fds++] = fd;
	len = h->size += plan.longer;
	for (i = 0; i < 3; i++)
		memcpy(bytes + plan.set[i].at, &plan.set[i].value, plan.set[i].len);
	if (plan.cut != ALL)
		len = plan.cut;
	if (plan.slow_fd > 0) {
		/* nothing is closed before the message is complete */
		memcpy(all, fds, nb_fds * sizeof(fds[0]));
		all[nb_fds++] = plan.slow_fd;
		vt_try_send(fd, bytes, len - 1, all, nb_fds);
		close(plan.slow_fd);
		return vt_try_send(fd, bytes + len - 1, 1, NULL, 0);
	}
	return (len == 0 || vt_try_send(fd, bytes, len, fds, nb_fds)) && plan.cut == ALL;
}

static void *
proxy_run(void *arg)
{
	static uint8_t bytes[VFU_MAX_MESSAGE + 4096];
	unsigned int number, nb_fds, i;
	int client, server, fds[64];
	bool ok;

	(void)arg;
	for (;;) {
		client = accept4(proxy.listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (proxy.stop) {
			close(client);
			return NULL;
		}
		server = vt_connect();
		ok = true;
		for (number = 0; ok; number++) {
			memset(bytes, 0, 1024);
			ok = take(client, bytes, fds, &nb_fds) &&
				vt_try_send(server, bytes, ((struct vfu_header *)bytes)->size, fds,
					nb_fds);
			for (i = 0; i < nb_fds; i++)
				close(fds[i]);
			if (!ok)
				break;
			ok = take(server, bytes, fds, &nb_fds);
			i = nb_fds;
			if (number >= plan.number && plan.late_ms > 0)
				usleep(plan.late_ms * 1000);
			ok = ok && pass(client, bytes, fds, nb_fds, number == plan.number);
			while (i > 0)
				close(fds[--i]);
		}
		close(client);
		close(server);
	}
}

static void
proxy_open(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	vt_open(0);
	plan = (struct plan){.number = ALL};
	proxy.stop = false;
	snprintf(proxy.path, sizeof(proxy.path), "%s.proxy", vt_path);
	strcpy(addr.sun_path, proxy.path);
	proxy.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(proxy.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(proxy.listen_fd, 8), 0);
	assert_int_equal(pthread_create(&proxy.thread, NULL, proxy_run, NULL), 0);
}

static void
proxy_close(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	proxy.stop = true;
	strcpy(addr.sun_path, proxy.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	pthread_join(proxy.thread, NULL);
	close(fd);
	close(proxy.listen_fd);
	unlink(proxy.path);
	vt_close();
}

/* ---- calls ---- */

enum {
	INFO,
	REGION,
	REGION_SPARSE,
	IOEVENTFDS,
	IRQ_INFO,
	IRQ_FDS,
	IRQ_ACTION,
	IRQS_OFF,
	READ,
	WRITE,
	DMA_MAP,
	DMA_UNMAP,
	RESET,
	MIGRATION,
	GET_STATE,
	SET_STATE,
	STATE_READ,
	STATE_WRITE,
	LOG_START,
	LOG_STOP,
	LOG_REPORT,
	NB_CALLS
};

/* What has to be done before the call can succeed; it is not the call that the plan is for. */
static void
prepare(struct vfu_client *c, int call)
{
	const struct vfu_dma dma = {0x1000, 0x1000, 3, -1, 0};
	uint64_t page = 4096;

	if (call == DMA_UNMAP)
		assert_int_equal(vfu_client_dma_map(c, &dma), 0);
	else if (call == STATE_READ)
		assert_int_equal(vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_STOP_COPY), 0);
	else if (call == STATE_WRITE)
		assert_int_equal(vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_RESUMING), 0);
	else if (call == LOG_STOP || call == LOG_REPORT)
		assert_int_equal(vfu_client_log_start(c, &page, NULL, 0), 0);
	else
		assert_int_equal(vfu_client_reset(c), 0);
}

static int
do_call(struct vfu_client *c, int call)
{
	const struct vfu_dma dma = {0x1000, 0x1000, 3, -1, 0};
	struct vfu_ioeventfd io[VFU_MAX_FDS];
	enum vfio_device_mig_state state;
	struct vfu_device_info info;
	struct vfu_irq_info irq;
	struct vfu_region region;
	uint64_t value = 4096, bitmap;
	uint8_t buf[8] = {0};
	int ret, i, event;

	switch (call) {
	case INFO:
		return vfu_client_info(c, &info);
	case REGION:
	case REGION_SPARSE:
		ret = vfu_client_region(c, call == REGION ? VD_WHOLE : VD_SPARSE, &region);
		if (region.fd >= 0)
			close(region.fd);
		if (ret < 0)
			assert_int_equal(region.fd, -1);
		return ret;
	case IOEVENTFDS:
		ret = vfu_client_ioeventfds(c, VD_SPARSE, io);
		for (i = 0; i < ret; i++)
			close(io[i].fd);
		return ret < 0 ? ret : 0;
	case IRQ_INFO:
		return vfu_client_irq_info(c, VD_MSIX, &irq);
	case IRQ_FDS:
		event = eventfd(0, EFD_CLOEXEC);
		ret = vfu_client_irq_fds(c, VD_MSIX, VFIO_IRQ_SET_ACTION_TRIGGER, 0, &event, 1);
		close(event);
		return ret;
	case IRQ_ACTION:
		return vfu_client_irq_action(c, VD_INTX, VFIO_IRQ_SET_ACTION_MASK, 0, 1);
	case IRQS_OFF:
		return vfu_client_irqs_off(c, VD_MSIX);
	case READ:
		return vfu_client_read(c, VD_REGS, 0, buf, sizeof(buf));
	case WRITE:
		return vfu_client_write(c, VD_REGS, 0, buf, sizeof(buf));
	case DMA_MAP:
		return vfu_client_dma_map(c, &dma);
	case DMA_UNMAP:
		return vfu_client_dma_unmap(c, dma.address, dma.size);
	case RESET:
		return vfu_client_reset(c);
	case MIGRATION:
		return vfu_client_migration(c, &value);
	case GET_STATE:
		return vfu_client_mig_state(c, &state);
	case SET_STATE:
		return vfu_client_set_mig_state(c, VFIO_DEVICE_STATE_STOP);
	case STATE_READ:
		ret = vfu_client_state_read(c, buf, sizeof(buf));
		assert_true(ret <= (int)sizeof(buf));
		return ret < 0 ? ret : 0;
	case STATE_WRITE:
		return vfu_client_state_write(c, buf, sizeof(buf));
	case LOG_START:
		return vfu_client_log_start(c, &value, NULL, 0);
	case LOG_STOP:
		return vfu_client_log_stop(c);
	default:
		return vfu_client_log_report(c, 0, 4096, 4096, &bitmap);
	}
}

#endif /* VFU_PROXY_H */
