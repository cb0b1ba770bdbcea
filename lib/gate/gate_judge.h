/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a front-end may ask for, given what was offered and what it has said before. Pure functions:
 * no socket, no system call, no clock; a connection's state belongs to whoever calls. Everything
 * that a message says is judged here before librte_vhost sees it, values against each other with
 * checked arithmetic, so that what was accepted once stays right together.
 */

#ifndef GATE_JUDGE_H
#define GATE_JUDGE_H

#include "gate_proto.h"

/** Payloads, as they are on the wire. */
struct gate_wire_region {
	uint64_t gpa, size, uva, offset;
};

union gate_payload {
	uint8_t raw[GATE_PAYLOAD_MAX];
	uint64_t u64;
	struct {
		uint32_t index, num;
	} state;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr;
	struct {
		uint32_t nb_regions, padding;
		struct gate_wire_region regions[GATE_MAX_REGIONS];
	} table;
	struct {
		uint64_t padding;
		struct gate_wire_region region;
	} slot;
	struct {
		uint64_t iova, size, uva;
		uint8_t perm, type;
	} iotlb;
	struct {
		uint64_t size, offset;
	} log;
	struct {
		uint64_t size, offset;
		uint16_t queues, queue_size;
		uint32_t padding;
	} inflight;
	struct {
		uint32_t offset, size, flags;
		uint8_t bytes[GATE_CONFIG_SIZE];
	} config;
};

/** One message; on the wire it begins with `request`. */
struct gate_message {
	uint32_t unused; /**< so that the payload is aligned */
	uint32_t request, flags, size;
	union gate_payload payload;
};

/** What a descriptor is; see gate_fd_look(). */
enum gate_fd_kind {
	GATE_FD_OTHER,	/**< nothing that a request wants */
	GATE_FD_EVENT,	/**< eventfd */
	GATE_FD_PIPE,	/**< pipe or FIFO without a file system behind it */
	GATE_FD_SOCKET, /**< connected stream socket of the UNIX domain */
	GATE_FD_MEMORY, /**< regular file whose pages nobody else's process has to supply */
};

/** A descriptor that came with a message: facts only. */
struct gate_fd {
	uint8_t kind;	/**< enum gate_fd_kind */
	int fd;		/**< for the caller; negative: not kept */
	uint64_t size;	/**< of a file */
	uint64_t block; /**< what the length of a mapping is rounded up to */
};

/** What a socket offers, and how much of it; constant while connections are there. */
struct gate_offer {
	uint64_t features;
	uint64_t protocol_features;
	uint16_t rings;	       /**< that the device has */
	uint16_t queues;       /**< the answer to GET_QUEUE_NUM */
	uint64_t space_max;    /**< bytes of address space that a table may take */
	uint64_t log_max;      /**< bytes of a dirty log */
	uint64_t inflight_max; /**< bytes of an in-flight region */
};

struct gate_region {
	struct gate_wire_region wire;
	struct gate_fd file;
};

struct gate_ring_state {
	uint64_t desc, avail, used, log;
	uint32_t num; /**< 0: not said */
	uint32_t base;
	uint32_t flags; /**< of SET_VRING_ADDR */
	bool has_addr;
	bool started; /**< has a kick, also one without a descriptor */
};

/** Everything that a connection has said and that was accepted. All zeroes: a new one. */
struct gate_state {
	uint64_t features;
	uint64_t protocol_features;
	bool has_features;
	uint8_t status;
	uint8_t nb_regions;
	uint16_t nb_started;
	uint64_t log_size; /**< 0: there is none */
	uint64_t space;	   /**< address space of the table, bytes */
	struct gate_region regions[GATE_MAX_REGIONS];
	struct gate_ring_state rings[GATE_MAX_RINGS];
};

enum gate_verdict {
	GATE_PASS,    /**< goes on to the library, as gate_judgement.out */
	GATE_ANSWER,  /**< the gate answers with gate_judgement.out, or with an acknowledgement */
	GATE_REFUSE,  /**< not acknowledged if that can be said, else the end */
	GATE_HANG_UP, /**< the end */
};

struct gate_judgement {
	uint8_t verdict;	 /**< enum gate_verdict */
	bool answered;		 /**< the front-end gets an answer of its own to it */
	bool acked;		 /**< it asked for an acknowledgement, and may */
	bool certain;		 /**< the front-end need not wait for the library */
	bool take_fds;		 /**< the state refers to the message's descriptors from now on */
	int ring;		 /**< that is meant, or -1 */
	const char *reason;	 /**< of REFUSE and HANG_UP, for people */
	struct gate_message out; /**< PASS, and ANSWER with `answered` */
	uint8_t nb_fds;		 /**< that go with it */
	int fds[GATE_MAX_FDS];
};

/** Where a connection stands. */
enum gate_phase gate_phase(const struct gate_state *state);

/**
 * Judge the frame of a message as soon as its header is there: is there such a request, has it the
 * right size?
 *
 * @return
 *   NULL if so, else what is wrong: nothing behind it can be read.
 */
const char *gate_judge_header(uint32_t request, uint32_t flags, uint32_t size);

/**
 * Judge a whole message.
 *
 * @param state
 *   changed only if the verdict is GATE_PASS or GATE_ANSWER.
 * @param msg
 *   whose header gate_judge_header() has accepted; bytes behind the payload are zero.
 * @param fds
 *   what came with it, in order.
 */
void gate_judge(const struct gate_offer *offer, struct gate_state *state,
	const struct gate_message *msg, const struct gate_fd *fds, unsigned int nb_fds,
	struct gate_judgement *j);

/**
 * Judge a message of the library's to the front-end's back-channel.
 *
 * @return
 *   NULL if it may pass, else what is wrong.
 */
const char *gate_judge_back(const struct gate_message *msg, unsigned int nb_fds);

#endif /* GATE_JUDGE_H */
