/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the files of the gate's server share. Everything belongs to the gate's thread, but for what
 * says otherwise.
 */

#ifndef GATE_PRIVATE_H
#define GATE_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "gate.h"
#include "gate_fd.h"
#include "gate_judge.h"

#define GATE_WINDOW	64 /* messages that the back-end has not answered yet */
#define GATE_BACK_ASKED 16 /* questions of the back-end's that wait for an answer */
#define GATE_NEVER_NS	INT64_MAX

/* ---- one socket in the epoll set ---- */

enum gate_source_kind {
	GATE_SOURCE_WAKE,
	GATE_SOURCE_LISTEN,
	GATE_SOURCE_FRONT,
	GATE_SOURCE_LIB,
	GATE_SOURCE_BACK_FRONT,
	GATE_SOURCE_BACK_LIB,
};

struct gate_source {
	uint8_t kind;
	int fd; /* -1: none */
	uint32_t events;
	void *owner;
};

/** Wait for these events of it from now on. 0, or -1 if it cannot be watched. */
int gate_watch(struct gate *gate, struct gate_source *s, uint32_t events);
/** Close it. */
void gate_unwatch(struct gate *gate, struct gate_source *s);

/* ---- messages in and out: gate_io.c ---- */

struct gate_in {
	uint32_t have; /* bytes */
	uint8_t nb_fds;
	bool surplus;	  /* more descriptors came than any message takes */
	int64_t deadline; /* for the rest of it */
	struct gate_message msg;
	int fds[GATE_MAX_FDS];
};

enum gate_io {
	GATE_IO_DONE,	  /* a whole message */
	GATE_IO_WAIT,	  /* not now */
	GATE_IO_END,	  /* the peer has hung up */
	GATE_IO_NONSENSE, /* see `why` */
};

/** Look at a header: NULL, or why the message cannot be read. */
typedef const char *(*gate_header_check)(uint32_t request, uint32_t flags, uint32_t size);

/**
 * Go on reading a message; never waits.
 *
 * @param least
 *   bytes that it has in any case, read at once; 0: a header's.
 * @param closer
 *   of descriptors for which there is no room.
 */
enum gate_io gate_receive(int fd, struct gate_in *in, uint32_t least, gate_header_check check,
	struct vfn_closer *closer, const char **why);

/** Begin the next message; descriptors were taken or closed. */
void gate_in_reset(struct gate_in *in);

/** Close what came with it. */
void gate_in_close_fds(struct gate_in *in, struct vfn_closer *closer);

struct gate_out {
	bool full; /* something waits to be sent */
	uint8_t nb_fds;
	uint8_t own; /* bit i: fds[i] is closed once it is sent */
	int64_t deadline;
	struct gate_message msg;
	int fds[GATE_MAX_FDS];
};

/** Send what waits; never waits itself. GATE_IO_DONE, _WAIT or _END. */
enum gate_io gate_send(int fd, struct gate_out *out);

/** Drop what waits. */
void gate_out_drop(struct gate_out *out);

/* ---- the back-channel: gate_back.c ---- */

struct gate_back {
	struct gate_conn *conn;
	struct gate_source front, lib;
	struct gate_in from_front, from_lib;
	struct gate_out to_front, to_lib;
	uint8_t first, nb_asked;
	struct gate_asked {
		uint32_t request;
		bool late; /* the back-end has had its answer */
		int64_t deadline;
	} asked[GATE_BACK_ASKED];
};

/** Make one of the front-end's socket; *lib_fd is for the back-end. NULL: no descriptors. */
struct gate_back *gate_back_open(struct gate_conn *conn, int front_fd, int *lib_fd);
void gate_back_close(struct gate_back *back);
void gate_back_event(struct gate_back *back);
void gate_back_expire(struct gate_back *back, int64_t now);

/* ---- one connection: gate_conn.c ---- */

/* An answer that is owed to the front-end, or expected of the back-end, or both. */
struct gate_pending {
	uint32_t request; /* of the front-end */
	bool expected;	  /* the back-end answers */
	bool owed;	  /* the front-end gets something, in its turn */
	bool own;	  /* of its own, else an acknowledgement */
	bool local;	  /* it is what follows */
	uint8_t size;
	uint8_t bytes[8];
};

struct gate_conn {
	LIST_ENTRY(gate_conn) next;
	struct gate_socket *sock;
	struct gate_source front, lib;
	struct gate_in from_front, from_lib;
	struct gate_out to_front, to_lib;
	bool no_more;	   /* nothing more is read from the front-end; the rest is carried out */
	bool lib_told;	   /* that there is no more */
	bool draining;	   /* only the back-end's end is waited for */
	bool dead;	   /* freed after this round */
	bool useful;	   /* it has said something right */
	bool again;	   /* there is more to do than one turn allows */
	bool look;	   /* the back-end may have said something */
	int64_t collect;   /* when to look for it without being told; 0: not */
	int64_t paused;	   /* until then nothing is read; 0: not */
	int64_t reconnect; /* when to try again to reach the back-end; 0: not */
	struct gate_back *back;
	uint16_t first, nb_pending;
	struct gate_pending pending[GATE_WINDOW];
	struct gate_state state;
};

/** A front-end has come. */
void gate_conn_open(struct gate_socket *sock, int fd);
/** Do whatever can be done now. The connection may be gone afterwards. */
void gate_conn_run(struct gate_conn *conn);
/** Hang up; the rest of it waits for the back-end. */
void gate_conn_end(struct gate_conn *conn);
void gate_conn_expire(struct gate_conn *conn, int64_t now);
/** Free one at once, whatever the back-end does. */
void gate_conn_free(struct gate_conn *conn);

/** Nothing more is read; what was promised is kept, then the connection ends. */
void gate_conn_finish(struct gate_conn *conn);
/** The back-end has hung up, or talks nonsense. */
void gate_conn_library_left(struct gate_conn *conn);

/* ---- its answers: gate_answer.c ---- */

/** What a message brings about, behind what is there already. There has to be room. */
struct gate_pending *gate_push(struct gate_conn *conn, uint32_t request);
/** Does the front-end wait for something? */
bool gate_is_owed(const struct gate_conn *conn);
/** Answer now; there has to be room in to_front. */
void gate_reply(struct gate_conn *conn, uint32_t request, const void *bytes, uint32_t size);
/** Answer in its turn, or at once if `certain` and nobody could tell the difference. */
void gate_answer_local(
	struct gate_conn *conn, uint32_t request, const void *bytes, uint32_t size, bool certain);
/** Carry on with the oldest question. True if there was something to do. */
bool gate_answer(struct gate_conn *conn);
/** A header of the back-end's. */
const char *gate_check_answer(uint32_t request, uint32_t flags, uint32_t size);

/* ---- one socket: gate_socket.c ---- */

struct gate_socket {
	struct gate *gate;
	char *name, *path, *private_path;
	struct gate_source listen; /* fd -1: client */
	bool client;
	bool removed;	       /* only waits for the back-end */
	bool full;	       /* the limit of connections is reached: nobody is accepted */
	unsigned int nb_front; /* connections whose front-end is there */
	unsigned int nb_drain; /* others */
	int64_t drain_end;     /* until then the next one waits for them */
	int64_t retry_at;      /* client: connect; server: accept again. GATE_NEVER_NS: no */
	int64_t retry_ms;
	bool said_retry;
	int64_t silent_at;  /* client: when to look whether anything was said since `heard` */
	uint64_t heard;	    /* messages before the connection */
	int64_t rate_empty; /* ns; when the bucket of messages was empty */
	int64_t log_empty;
	struct gate_said {
		int64_t at;
		unsigned int lost;
	} said[GATE_MAX_REASONS + 1]; /* per reason of stats */
	uint64_t space;
	struct gate_offer offer;
	struct vfn_closer *closer;
	LIST_HEAD(, gate_conn) conns;
	struct gate_stats stats; /* under gate.lock */
};

void gate_socket_begin(struct gate_socket *sock);
void gate_socket_event(struct gate_socket *sock);
void gate_socket_expire(struct gate_socket *sock, int64_t now);
/** A front-end has gone. */
void gate_socket_lost(struct gate_socket *sock, bool useful);
/** A connection is gone for good. */
void gate_socket_freed(struct gate_socket *sock);
void gate_socket_free(struct gate_socket *sock);
/** 0 if a front-end of it may send a message now, else when. */
int64_t gate_socket_may_send(const struct gate_socket *sock);
/** One was sent. */
void gate_socket_sent(struct gate_socket *sock);
/** Address space that one connection may take, which has some already. */
uint64_t gate_socket_space(const struct gate_socket *sock, uint64_t has);

/** A line about a socket, rate-limited. */
void gate_say(struct gate_socket *sock, enum gate_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** Count and say what is refused. */
void gate_refused(struct gate_socket *sock, uint32_t request, int ring, const char *reason);

/* ---- the gate: gate.c ---- */

struct gate {
	struct gate_conf conf;
	pthread_t thread;
	int epoll_fd;
	struct gate_source wake;
	int64_t now;	  /* ns, of this round */
	int64_t deadline; /* the earliest of all */
	uint64_t space;
	uint64_t fds; /* that one connection of each socket takes */
	unsigned int nb_conns;
	unsigned int nb_sockets, max_sockets;
	struct gate_socket **sockets; /* NULL: free */

	pthread_mutex_t lock; /* of what follows, and of statistics; no system call under it */
	pthread_cond_t done;
	struct gate_call *call;
	bool end;
};

/** There is something to do at that time. */
static inline void
gate_at(struct gate *gate, int64_t when)
{
	if (when < gate->deadline)
		gate->deadline = when;
}

static inline int64_t
gate_in_ms(const struct gate *gate, int64_t ms)
{
	return gate->now + ms * 1000000;
}

/** Connections that a socket may have at a time. */
unsigned int gate_connections(const struct gate *gate);

/** One of a socket's statistics, which other threads read, gets a value. */
#define gate_stat(port_, field, value) \
	do { \
		pthread_mutex_lock(&(port_)->gate->lock); \
		(port_)->stats.field = (value); \
		pthread_mutex_unlock(&(port_)->gate->lock); \
	} while (0)
#define gate_count(port_, field) gate_stat(port_, field, (port_)->stats.field + 1)

/** Sockets that are gone are freed after the round, as events of theirs may be left in it. */
void gate_free_later(struct gate *gate, void *memory);

#endif /* GATE_PRIVATE_H */
