/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What the files of lib/vfio_user share. */

#ifndef VFU_PRIVATE_H
#define VFU_PRIVATE_H

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include <vfn_closer.h>

#include "vfu_client.h"
#include "vfu_proto.h"
#include "vfu_server.h"

/* Of a message: the largest payload before data is vfu_region_write's count, or vfu_feature's. */
#define VFU_MAX_PAYLOAD (VFU_MAX_XFER + 64)
#define VFU_MAX_MESSAGE (sizeof(struct vfu_header) + VFU_MAX_PAYLOAD)

/*
 * How long a peer may take for the version, the rest of a message that has begun, an answer, and to
 * make room in the socket. A variable for the tests' sake, set before there are threads.
 */
extern unsigned int vfu_timeout_ms;

/* ---- vfu_io.c ---- */

enum vfu_io {
	VFU_IO_DONE,
	VFU_IO_WAIT,	 /* some of it is not there yet */
	VFU_IO_END,	 /* the peer is gone */
	VFU_IO_NONSENSE, /* no message can have such a header */
};

/* A message that comes in. */
struct vfu_in {
	union {
		uint8_t *bytes; /* VFU_MAX_MESSAGE of them */
		struct vfu_header *header;
	};
	size_t have;
	uint64_t deadline; /* for the rest of it, in ms; of one that has begun */
	int fds[VFU_MAX_FDS];
	unsigned int nb_fds;
	bool surplus;		   /* there were more of them; they are closed */
	struct vfn_closer *closer; /* NULL: the peer is trusted to have none whose close waits */
};

/* A message that goes out: header, and up to two more pieces. */
struct vfu_out {
	struct vfu_header header;
	const void *head;
	size_t head_len;
	const void *data;
	size_t data_len;
	const int *fds;
	unsigned int nb_fds;
};

/* Of a peer's descriptors, before nothing more of it is read. */
#define VFU_MAX_CLOSING 64
bool vfu_in_init(struct vfu_in *in, struct vfn_closer *closer);
void vfu_in_free(struct vfu_in *in);
/* Done with the message; what nobody took of its descriptors is closed. */
void vfu_in_reset(struct vfu_in *in);
/* Take what is there of a message. Never waits. */
enum vfu_io vfu_receive(int fd, struct vfu_in *in);
/* Send one. False: the peer is gone, or takes nothing for VFU_TIMEOUT_MS. */
bool vfu_send(int fd, struct vfu_out *out);
/* Close a socket. */
/* Close a descriptor that a peer has sent. */
void vfu_drop(struct vfn_closer *closer, int fd);
void vfu_hang_up(int fd, struct vfn_closer *closer);
uint64_t vfu_now_ms(void);
/* Wait for events on fd until the deadline; false: none came. */
bool vfu_wait(int fd, short events, uint64_t deadline);

static inline const void *
vfu_payload(const struct vfu_in *in)
{
	return in->bytes + sizeof(struct vfu_header);
}

static inline size_t
vfu_payload_len(const struct vfu_in *in)
{
	return in->header->size - sizeof(struct vfu_header);
}

/* ---- vfu_version.c ---- */

/* What a peer has said of itself. */
struct vfu_peer {
	uint32_t max_fds;
	uint32_t max_xfer;
	uint32_t max_maps;
	bool multi; /* takes VFIO_USER_REGION_WRITE_MULTI */
	/* Which of them it has said: the answer names no others. */
	bool said_fds, said_xfer, said_maps, said_pgsizes;
};

/* NULL, or what is wrong with the version's data. */
const char *vfu_version_parse(const char *json, size_t len, struct vfu_peer *peer);
/* Our own, to be freed; of those that the peer has said, NULL: all. NULL: no memory. */
char *vfu_version_print(const struct vfu_peer *peer);

/* ---- the server ---- */

/* Commands that may come while the server waits for an answer. */
#define VFU_MAX_EARLY 64

/* One of them. */
struct vfu_early {
	STAILQ_ENTRY(vfu_early) next;
	struct vfu_in in;
};

struct vfu_server {
	struct vfu_device device;
	int fd; /* -1: no client */
	bool attached;
	uint64_t deadline; /* for the version, in ms */
	struct vfn_closer *closer;
	struct vfu_peer peer;
	bool broken; /* by what it answered: it is hung up */

	struct vfu_in in;
	const struct vfu_in *now; /* the command that is being done */
	struct vfu_in answer;	  /* to a command of ours */
	uint16_t id;		  /* of the last of them */
	STAILQ_HEAD(, vfu_early) early;
	unsigned int nb_early;

	/* The reply that is being made. */
	uint8_t *reply; /* VFU_MAX_PAYLOAD */
	size_t reply_len;
	int reply_fds[VFU_MAX_FDS];
	unsigned int nb_reply_fds;
	const char *why; /* a command is refused, if there is more to say than its error */

	struct vfu_dma *map; /* sorted */
	unsigned int nb_maps;
	enum vfio_device_mig_state state;
	bool logging;

	/* Lines for the operator: how many of late, since when that is known, and left out. */
	unsigned int told, untold;
	uint64_t told_at;
};

/*
 * Do a command, whose payload is len bytes: 0 or a negative errno value. The reply's payload is
 * left in server->reply.
 */
typedef int (*vfu_handler)(struct vfu_server *server, const void *payload, size_t len);

/* Tell the operator; of many lines at a time some are left out. */
void vfu_tell(struct vfu_server *server, bool error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Index of the first map that does not end below address. */
unsigned int vfu_map_find(const struct vfu_server *server, uint64_t address);

int vfu_do_dma_map(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_dma_unmap(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_info(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_region_info(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_region_io_fds(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_irq_info(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_set_irqs(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_region_read(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_region_write(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_reset(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_write_multi(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_feature(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_mig_read(struct vfu_server *server, const void *payload, size_t len);
int vfu_do_mig_write(struct vfu_server *server, const void *payload, size_t len);

static inline int
vfu_refuse(struct vfu_server *server, int error, const char *why)
{
	server->why = why;
	return error;
}

/* ---- the client ---- */

struct vfu_client {
	pthread_mutex_t lock;
	int fd;
	bool dead;
	uint16_t id;
	unsigned int timeout_ms;
	struct vfu_patience own, *patience;
	struct vfu_peer peer;
	const struct vfu_client_ops *ops;
	void *priv;
	struct vfu_in in;
	uint8_t *data; /* VFU_MAX_XFER, that the server asked for; NULL: it has not yet */
};

/* A command of ours. */
struct vfu_call {
	uint16_t command;
	const void *head;
	size_t head_len;
	const void *data;
	size_t data_len;
	const int *fds;
	unsigned int nb_fds;
	/* The reply's payload: its head, then data. */
	void *reply;
	size_t reply_len;
	void *reply_data;
	size_t reply_room;  /* of reply_data */
	size_t reply_extra; /* bytes of it that there are; set */
	/* Its descriptors, and how many there may be; set to how many there are. */
	int *reply_fds;
	unsigned int nb_reply_fds;
};

int vfu_call(struct vfu_client *client, struct vfu_call *c);
/* A reply contradicts itself: the end of the connection, -EPIPE. */
int vfu_nonsense(struct vfu_client *client);

#endif /* VFU_PRIVATE_H */
