/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Ports: where the frames of each transmit queue go, and which poller moves them. Control.
 *
 * Everything that changes a function's queues happens between vfn_port_stop(), after which no
 * poller touches a queue of the function or sends to it, and vfn_port_start(), which works out
 * anew who sends where. Pollers of other functions are not concerned.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_malloc.h>

#include "net.h"

static void
port_free(struct vfn_function *fn)
{
	vfn_ethdev_close(fn);
	rte_free(fn->rate);
	free(fn->gen_frame);
	free(fn->work);
}

int
vfn_port_open(struct vfn_function *fn)
{
	struct vfn_function *other;
	unsigned int i;
	int ret;

	TAILQ_FOREACH(other, &vfn_functions, next) {
		if (fn->params.port != VFN_PORT_WIRE || other->params.port != VFN_PORT_WIRE)
			continue;
		if (strcmp(fn->params.peer, other->params.name) != 0 &&
			strcmp(other->params.peer, fn->params.name) != 0)
			continue;
		if (other->peer != NULL || fn->peer != NULL) {
			FN_LOG(ERR, fn, "peer=%s: that end is wired to %s already",
				other->params.name,
				other->peer != NULL ? other->peer->params.name :
						      fn->peer->params.name);
			return -EBUSY;
		}
		fn->peer = other;
	}
	fn->work = calloc(2 * fn->params.max_pairs + 1 + fn->nb_queues, sizeof(*fn->work));
	if (fn->work == NULL)
		return -ENOMEM;
	if (fn->params.port == VFN_PORT_GEN && vfn_gen_open(fn) < 0) {
		ret = -ENOMEM;
		goto free_fn;
	}
	if (fn->params.port == VFN_PORT_ETHDEV) {
		ret = vfn_ethdev_new(fn);
		if (ret < 0)
			goto free_fn;
	}
	if (fn->params.rate_mbps != 0) {
		fn->rate = rte_malloc("vfn_rate", sizeof(*fn->rate), RTE_CACHE_LINE_SIZE);
		if (fn->rate == NULL) {
			ret = -ENOMEM;
			goto free_fn;
		}
		vfn_rate_init(fn->rate, fn->params.rate_mbps, rte_get_tsc_hz());
	}
	for (i = 0; i < vfn_poller_count(&fn->params); i++) {
		ret = vfn_poller_get(&fn->params, i, &fn->poller[i]);
		if (ret < 0) {
			while (i-- > 0)
				vfn_poller_put(fn->poller[i]);
			goto free_fn;
		}
		fn->nb_pollers++;
	}
	if (fn->params.port != VFN_PORT_WIRE)
		fn->peer = fn;
	if (fn->peer != NULL) {
		fn->peer->peer = fn;
		vfn_config_link(fn);
		vfn_config_link(fn->peer);
	}
	return 0;

free_fn:
	port_free(fn);
	return ret;
}

/* The function's queues are all disabled. */
void
vfn_port_close(struct vfn_function *fn)
{
	struct vfn_function *peer = fn->peer;
	unsigned int i;

	if (peer != NULL && peer != fn) {
		vfn_port_stop(fn);
		peer->peer = NULL;
		fn->peer = NULL;
		vfn_port_start(peer);
		vfn_config_link(peer);
	}
	for (i = 0; i < fn->nb_pollers; i++)
		vfn_poller_put(fn->poller[i]);
	port_free(fn);
}

/* Tell every poller that has some of fn's work, once each. */
static void
tell_pollers(struct vfn_function *fn, void (*tell)(struct vfn_poller *, struct vfn_function *))
{
	unsigned int i, j;

	for (i = 0; i < fn->nb_work; i++) {
		for (j = 0; j < i && fn->work[j].poller != fn->work[i].poller; j++)
			;
		if (j == i)
			tell(fn->work[i].poller, fn);
	}
}

static void
work_stop(struct vfn_function *fn)
{
	tell_pollers(fn, vfn_poller_remove);
	fn->nb_work = 0;
}

/*
 * Receive queues that frames may be put into (5.1.6.5.6): active ones of the pairs in use.
 * *hold is set if there is none, but one that is merely suspended, and while one is being moved:
 * for that time its senders would go to others.
 */
static unsigned int
receivers(struct vfn_function *fn, struct vfn_queue **rx, bool *hold)
{
	unsigned int i, n = 0, moving = 0;

	*hold = false;
	for (i = 0; i < fn->curr_pairs; i++) {
		struct vfn_queue *q = &fn->queue[2 * i];

		if (vfn_queue_active(q))
			rx[n++] = q;
		else if (q->enabled && q->suspended)
			*hold = true;
		moving += q->moving;
	}
	if (moving > 0)
		*hold = true;
	return moving > 0 ? 0 : n;
}

/* The driver's job of a queue is done by the poller that has the queue. */
static void
job_add(struct vfn_function *fn, struct vfn_queue *q)
{
	struct vfn_work *w = &fn->work[fn->nb_work];
	unsigned int i;

	*w = (struct vfn_work){.fn = fn,
		.tx = q,
		.job = q->job,
		.poller = fn->poller[q->index / 2 % fn->nb_pollers]};
	for (i = 0; i < fn->nb_work; i++)
		if (fn->work[i].tx == q)
			w->poller = fn->work[i].poller;
	fn->nb_work++;
}

/* Frames are made by whoever has the pair. */
static void
gen_start(struct vfn_function *fn, struct vfn_queue **rx, unsigned int n)
{
	unsigned int i;

	vfn_gen_prepare(fn);
	if (vfn_filter_needed(fn) && !vfn_filter_accepts(fn, fn->gen_frame, fn->params.gen))
		return;
	for (i = 0; i < n; i++)
		fn->work[fn->nb_work++] = (struct vfn_work){.fn = fn,
			.tx = rx[i],
			.poller = fn->poller[rx[i]->index / 2 % fn->nb_pollers],
			.run = vfn_gen_run};
}

static void
work_start(struct vfn_function *fn)
{
	/* Between guests each transmit queue feeds a receive queue. */
	bool between = fn->params.port == VFN_PORT_LOOPBACK || fn->params.port == VFN_PORT_WIRE;
	struct vfn_queue *rx[VFN_MAX_PAIRS], *ctrl;
	unsigned int i, n = 0;
	bool hold = false;

	if (fn->rate != NULL)
		vfn_rate_reset(fn->rate);
	if (vfn_link_up(fn))
		n = receivers(fn->peer, rx, &hold);
	if (fn->params.port == VFN_PORT_GEN)
		gen_start(fn, rx, n);
	else if (fn->ethdev != NULL)
		fn->nb_work += vfn_ethdev_work(fn, rx, n, fn->work);
	if (!between) {
		hold = false;
		n = 0;
	}
	for (i = 0; i < fn->params.max_pairs; i++) {
		struct vfn_work w = {
			.fn = fn,
			.tx = &fn->queue[2 * i + 1],
			.rate = fn->rate,
			.poller = fn->poller[i % fn->nb_pollers],
			.run = vfn_net_forward,
		};

		/* While the receiver is only suspended frames wait: nothing is lost. */
		if (!vfn_queue_active(w.tx) || (n == 0 && hold))
			continue;
		if (!between && vfn_link_up(fn)) {
			w.run = fn->ethdev != NULL ? vfn_ethdev_send : vfn_sink_run;
			if (fn->ethdev != NULL)
				w.poller = vfn_ethdev_tx_poller(fn, i);
		}
		if (n > 0) {
			/* A receive queue has one poller, whoever sends to it. */
			struct vfn_function *to = fn->peer;

			w.rx = rx[i % n];
			w.filter = vfn_filter_needed(to);
			w.short_hdr = vfn_net_hdr_len(fn) != VFN_NET_HDR_SIZE ||
				vfn_net_hdr_len(to) != VFN_NET_HDR_SIZE;
			w.poller = to->poller[w.rx->index / 2 % to->nb_pollers];
		}
		fn->work[fn->nb_work++] = w;
	}
	ctrl = &fn->queue[vfn_ctrl_index(fn)];
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_VQ) && vfn_queue_active(ctrl))
		fn->work[fn->nb_work++] = (struct vfn_work){
			.fn = fn, .tx = ctrl, .poller = fn->poller[0], .run = vfn_ctrl_run};
	for (i = 0; i < fn->nb_queues; i++)
		if (fn->queue[i].job != NULL && vfn_queue_active(&fn->queue[i]))
			job_add(fn, &fn->queue[i]);
	tell_pollers(fn, vfn_poller_add);
}

static void
wake_work(const struct vfn_function *fn, const struct vfn_queue *q)
{
	unsigned int i;

	for (i = 0; i < fn->nb_work; i++)
		if (fn->work[i].tx == q || fn->work[i].rx == q)
			vfn_poller_wake(fn->work[i].poller);
}

/* The queue's doorbell rang: whoever has it looks. */
void
vfn_port_wake(const struct vfn_queue *q)
{
	wake_work(q->fn, q);
	if (q->fn->peer != NULL && q->fn->peer != q->fn)
		wake_work(q->fn->peer, q);
}

void
vfn_port_stop(struct vfn_function *fn)
{
	work_stop(fn);
	if (fn->peer != NULL && fn->peer != fn)
		work_stop(fn->peer);
}

void
vfn_port_start(struct vfn_function *fn)
{
	if (fn->ethdev != NULL) {
		vfn_ethdev_open(fn);
		vfn_config_link(fn);
	}
	work_start(fn);
	if (fn->peer != NULL && fn->peer != fn)
		work_start(fn->peer);
}
