/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A gate in front of a vhost-user back-end that trusts its front-ends. It owns the sockets that
 * front-ends use; for each connection it opens one to the back-end's own socket, judges every
 * message and passes on what is right. Control messages only: rings and eventfds are shared between
 * the front-end and the back-end as ever. doc/gate.md tells what is judged.
 *
 * One thread, "vfn-gate", does it all. The functions here may be called on any thread but that one;
 * for one gate, one at a time.
 */

#ifndef GATE_H
#define GATE_H

#include <stdbool.h>
#include <stdint.h>

struct gate;

enum gate_log_level {
	GATE_LOG_ERR,
	GATE_LOG_WARNING,
	GATE_LOG_NOTICE,
};

/** What a gate needs to know. */
struct gate_conf {
	/** Say something, on the gate's thread: a line without its end. Never NULL. */
	void (*log)(enum gate_log_level level, const char *line);
	unsigned int connections; /**< of a socket at a time; 0: GATE_CONNECTIONS */
	unsigned int fds_max;	  /**< descriptors for all connections; 0: not counted */
	uint64_t space_max;	  /**< address space for all tables, bytes; 0: GATE_SPACE_MAX */
};

/* Limits and deadlines; doc/gate.md has the reasons. */
#define GATE_CONNECTIONS    4
#define GATE_BACKEND_MAX    1000 /**< librte_vhost waits for 1,024 sockets, its own included */
#define GATE_FDS	    24	 /**< of a connection: regions, log, sockets, ... */
#define GATE_FDS_PER_RING   4	 /**< kick and call, and a copy of each */
#define GATE_SPACE_MAX	    (UINT64_C(1) << 45) /**< of the process: a quarter of what there is */
#define GATE_CONN_SPACE_MAX (UINT64_C(1) << 42) /**< of a connection */
#define GATE_LOG_MAX	    (UINT64_C(1) << 28) /**< a dirty log: 8 TiB of guest memory */
#define GATE_INFLIGHT_MAX   (UINT64_C(1) << 26)
#define GATE_MSGS_PER_S	    10000 /**< of a socket */
#define GATE_MSGS_BURST	    4096
#define GATE_HALF_MS	    1000 /**< from the first byte of a message to its last */
#define GATE_UNREAD_MS	    1000 /**< until an answer is taken */
#define GATE_BACK_MS	    1000 /**< until the front-end has answered on its back-channel */
#define GATE_RETRY_MIN_MS   10	 /**< client mode */
#define GATE_RETRY_MAX_MS   1000
#define GATE_SILENT_MS	    3000 /**< client mode: a front-end that says nothing is told of */
#define GATE_CLOSING_MAX    16	 /**< descriptors of a socket that wait to be closed */

/** One socket: a socket that front-ends use, and the back-end behind it. */
struct gate_socket_conf {
	const char *name;	  /**< in log lines */
	const char *path;	  /**< of the public socket */
	const char *private_path; /**< where the back-end listens */
	int listen_fd;		  /**< of the public socket, taken over; -1: connect to it */
	uint64_t features;	  /**< that the back-end offers */
	uint64_t protocol_features;
	bool slots;	 /**< offer CONFIGURE_MEM_SLOTS, of the gate's own making */
	uint16_t rings;	 /**< that the device has */
	uint16_t queues; /**< the back-end's answer to GET_QUEUE_NUM */
};

#define GATE_MAX_REASONS 96

/** Counters of a socket since it was added. */
struct gate_stats {
	uint32_t connections; /**< now */
	uint32_t waiting;     /**< descriptors that wait to be closed */
	uint64_t accepted;    /**< connections, ever */
	uint64_t messages;    /**< from front-ends */
	uint64_t passed;      /**< to the back-end */
	uint64_t answered;    /**< by the gate */
	uint64_t refused;     /**< sum of `reasons`, and of what has none there */
	uint64_t held_back;   /**< times that a front-end sent more than it may per second */
	uint64_t space;	      /**< bytes of address space that tables take */
	uint32_t nb_reasons;
	struct {
		const char *reason; /**< a constant string */
		uint64_t count;
	} reasons[GATE_MAX_REASONS];
};

/** Start a gate without sockets. NULL with errno. */
struct gate *gate_open(const struct gate_conf *conf);

/** Remove every socket and end the thread. NULL is allowed. */
void gate_close(struct gate *gate);

/**
 * Serve a socket. The strings are copied.
 *
 * @return
 *   its number, to be used for the other calls, or -errno; then listen_fd is still the caller's.
 */
int gate_add_socket(struct gate *gate, const struct gate_socket_conf *conf);

/**
 * Hang up on the front-ends of a socket, close its listening socket, and wait until the back-end
 * has closed its connections, for `patience_ms` at most.
 *
 * @return
 *   0; -ENOENT if there is no such socket; -ETIMEDOUT if the back-end has not closed all.
 */
int gate_remove_socket(struct gate *gate, int sock, int patience_ms);

/** Counters of a socket. 0 or -ENOENT. */
int gate_get_stats(struct gate *gate, int sock, struct gate_stats *stats);

#endif /* GATE_H */
