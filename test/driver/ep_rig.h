/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A function behind an endpoint, a client of it, and a link through that client for fn_harness.h.
 * The test's thread; the endpoint's are its own.
 */

#ifndef EP_RIG_H
#define EP_RIG_H

#include <vfn_endpoint_server.h>
#include <vfu_client.h>

#include "fn_harness.h"

#define RIG_MAPS 32

struct rig {
	struct vfn_function *fn;
	struct vfn_link *inner; /* to the function */
	struct vfn_endpoint *ep;
	char path[64];
	struct vfu_client *client; /* NULL: not connected */
	struct vfn_link link;	   /* through the client */
	struct vfu_dma map[RIG_MAPS];
	unsigned int nb_maps;
	struct guest *guest; /* whose link that is, or NULL */
	struct rig *next;
};

/* The function of conf behind an endpoint, without a client; offer: its client's control. */
struct rig *rig_new(const struct guest_conf *conf, vfn_endpoint_offer offer);
void rig_connect(struct rig *r);
void rig_disconnect(struct rig *r);
/* And a guest that drives it through the link, not started. */
struct guest *rig_guest(struct rig *r, const struct guest_conf *conf);
/* All of that, and the guest is started. */
struct guest *rig_guest_on(struct rig **rig, const struct guest_conf *conf);
/* A frame goes out and comes back. */
void rig_echo(struct guest *g, uint32_t number);
/* Teardown of every test. */
int rigs_close(void **state);

/* Wait until the endpoint is without a client. */
void rig_wait_idle(struct rig *r);

uint32_t client_get(struct rig *r, unsigned int region, uint64_t offset, size_t len);
int client_set(struct rig *r, unsigned int region, uint64_t offset, size_t len, uint32_t v);

/* Of migration. */
void mig_state_is(struct rig *r, enum vfio_device_mig_state state);
void mig_go_to(struct rig *r, enum vfio_device_mig_state state);

int eventfd_new(void);
/* How often an eventfd was signalled; waits for the first time if it has to be. */
unsigned int signals(int fd, bool wait);
/* It is signalled within a while; not more often than that counts. */
bool signalled(int fd);

#endif /* EP_RIG_H */
