/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Messages over a socket: whole ones in, whole ones out, with their descriptors, and never a wait,
 * whatever mode the socket is in. On the gate's thread.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gate_private.h"

/*
 * As many as the kernel lets a message have (SCM_MAX_FD). What there is no room for it would drop
 * on this thread, which may wait for that.
 */
#define ROOM_FDS 253

static void
close_one(int fd, struct vfn_closer *closer)
{
	struct gate_fd facts;

	gate_fd_look(fd, &facts);
	gate_fd_close(closer, &facts);
}

static void
take_fds(struct msghdr *hdr, struct gate_in *in, struct vfn_closer *closer)
{
	struct cmsghdr *c;
	size_t i, n;
	int fd;

	if ((hdr->msg_flags & MSG_CTRUNC) != 0)
		in->surplus = true;
	for (c = CMSG_FIRSTHDR(hdr); c != NULL; c = CMSG_NXTHDR(hdr, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (in->nb_fds < GATE_MAX_FDS) {
				in->fds[in->nb_fds++] = fd;
			} else {
				in->surplus = true;
				close_one(fd, closer);
			}
		}
	}
}

enum gate_io
gate_receive(int fd, struct gate_in *in, uint32_t least, gate_header_check check,
	struct vfn_closer *closer, const char **why)
{
	char control[CMSG_SPACE(ROOM_FDS * sizeof(int))] __attribute__((aligned(8)));
	uint8_t *bytes = (uint8_t *)&in->msg.request;
	uint32_t want = least > 0 ? least : GATE_HEADER_SIZE, had;
	ssize_t n;

	for (;;) {
		struct iovec iov;
		struct msghdr hdr = {.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};

		if (in->have >= GATE_HEADER_SIZE)
			want = GATE_HEADER_SIZE + in->msg.size;
		if (in->have >= want)
			return GATE_IO_DONE;
		iov = (struct iovec){bytes + in->have, want - in->have};
		n = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? GATE_IO_WAIT : GATE_IO_END;
		if (n == 0)
			return GATE_IO_END;
		take_fds(&hdr, in, closer);
		had = in->have;
		in->have += n;
		if (had >= GATE_HEADER_SIZE || in->have < GATE_HEADER_SIZE)
			continue;
		*why = check(in->msg.request, in->msg.flags, in->msg.size);
		if (*why == NULL &&
			(in->msg.size > GATE_PAYLOAD_MAX ||
				GATE_HEADER_SIZE + in->msg.size < least))
			*why = "the size of its payload is wrong";
		if (*why != NULL)
			return GATE_IO_NONSENSE;
	}
}

void
gate_in_reset(struct gate_in *in)
{
	memset(&in->msg, 0, sizeof(in->msg));
	in->have = 0;
	in->nb_fds = 0;
	in->surplus = false;
	in->deadline = 0;
}

void
gate_in_close_fds(struct gate_in *in, struct vfn_closer *closer)
{
	while (in->nb_fds > 0)
		close_one(in->fds[--in->nb_fds], closer);
}

void
gate_out_drop(struct gate_out *out)
{
	unsigned int i;

	for (i = 0; i < out->nb_fds; i++)
		if ((out->own >> i & 1) != 0)
			close(out->fds[i]);
	out->nb_fds = 0;
	out->full = false;
}

enum gate_io
gate_send(int fd, struct gate_out *out)
{
	char control[CMSG_SPACE(GATE_MAX_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec iov = {&out->msg.request, GATE_HEADER_SIZE + out->msg.size};
	struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (!out->full)
		return GATE_IO_DONE;
	if (out->nb_fds > 0) {
		memset(control, 0, sizeof(control));
		hdr.msg_control = control;
		hdr.msg_controllen = CMSG_SPACE(out->nb_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&hdr);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(out->nb_fds * sizeof(int));
		memcpy(CMSG_DATA(c), out->fds, out->nb_fds * sizeof(int));
	}
	do {
		n = sendmsg(fd, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return GATE_IO_WAIT;
	/* As small as these are a stream takes them whole or not at all. */
	gate_out_drop(out);
	return n == (ssize_t)iov.iov_len ? GATE_IO_DONE : GATE_IO_END;
}
