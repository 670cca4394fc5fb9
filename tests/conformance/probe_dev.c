/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The probe as a device at work: loads and stores through the shadow table, and the other commands
 * that cases give.
 */
#include "probe_priv.h"

/* so many faults that did not last until the access; then the caller is asked, who may be dying */
#define ACCESS_TRIES   16
#define PAUSED_LOOK_NS 200000000ULL

/* ---- accesses ---- */

static bool probe_in_use(const struct probe *p, uint64_t va, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < PROBE_USERS; i++)
		if (p->user[i] && p->user[i] >= va && p->user[i] - va < len)
			return true;
	return false;
}

void probe_wait_unused(struct probe *p, uint64_t va, uint64_t len)
{
	env_mutex_lock(&p->lock);
	while (probe_in_use(p, va, len))
		env_cond_wait(&p->cond, &p->lock, ENV_FOREVER);
	env_mutex_unlock(&p->lock);
}

/* Lock held. The page is the caller's alone until probe_use_end(): a store is a read and a write */
static unsigned int probe_use_begin(struct probe *p, uint64_t page)
{
	unsigned int i;

	for (;;) {
		for (i = 0; i < PROBE_USERS && p->user[i]; i++)
			;
		if (i < PROBE_USERS && !probe_in_use(p, page, PAGE))
			break;
		env_cond_wait(&p->cond, &p->lock, ENV_FOREVER);
	}
	p->user[i] = page;
	return i;
}

/* Lock held. */
static void probe_use_end(struct probe *p, unsigned int i)
{
	p->user[i] = 0;
	env_cond_wake(&p->cond);
}

static int probe_move(struct probe *p, uint64_t dst, uint32_t dst_kind, uint64_t src,
		      uint32_t src_kind)
{
	struct balun_copy op = {
		.dst = dst, .src = src, .len = PAGE, .dst_kind = dst_kind, .src_kind = src_kind
	};
	uint64_t cookie;
	int rc = p->drv->copy(p->inner, &op, 1, &cookie);

	return rc ? rc : p->drv->copy_wait(p->inner, cookie);
}

/* load or store in one page of device memory, with nothing but the driver's copy */
static int probe_local(struct probe *p, uint8_t *staging, uint64_t off, uint32_t in_page, void *buf,
		       size_t len, bool write)
{
	int rc = probe_move(p, (uintptr_t)staging, BALUN_KIND_SYSTEM, off, BALUN_KIND_LOCAL);

	if (rc)
		return rc;
	memcpy(write ? staging + in_page : buf, write ? buf : staging + in_page, len);
	return write ? probe_move(p, off, BALUN_KIND_LOCAL, (uintptr_t)staging, BALUN_KIND_SYSTEM)
		     : 0;
}

/* one access inside one page: 0; 1: no translation that allows it; -errno of a copy */
static int probe_access(struct probe *p, uint64_t va, void *buf, size_t len, bool write)
{
	struct probe_entry e;
	unsigned int user;
	int rc;

	env_mutex_lock(&p->lock);
	e = table_get(&p->table, va);
	if (!e.valid || (write && !(e.perm & BALUN_PERM_WRITE))) {
		env_mutex_unlock(&p->lock);
		return 1;
	}
	if (e.kind != BALUN_KIND_LOCAL) {
		env_mutex_unlock(&p->lock);
		/* may have to wait for an unmap, so unmap does not wait for it */
		rc = write ? balun_bus_write(p->space, e.addr + va % PAGE, buf, len)
			   : balun_bus_read(p->space, e.addr + va % PAGE, buf, len);
		return rc ? 1 : 0;
	}
	user = probe_use_begin(p, va & ~(PAGE - 1));
	/* it may have waited: look again */
	e = table_get(&p->table, va);
	if (!e.valid || e.kind != BALUN_KIND_LOCAL || (write && !(e.perm & BALUN_PERM_WRITE))) {
		probe_use_end(p, user);
		env_mutex_unlock(&p->lock);
		return 1;
	}
	env_mutex_unlock(&p->lock);
	rc = probe_local(p, p->staging + user * PAGE, e.addr, va % PAGE, buf, len, write);
	env_mutex_lock(&p->lock);
	probe_use_end(p, user);
	env_mutex_unlock(&p->lock);
	return rc;
}

/* an access with its faults */
static int cmd_access(struct probe *p, const struct probe_cmd *cmd, const struct balun_command *c)
{
	bool write = c->code == PROBE_CMD_WRITE;
	int tries, rc;

	if (!c->data_len || c->data_len > PAGE - cmd->va % PAGE)
		return -EINVAL;
	for (tries = 0; tries < ACCESS_TRIES; tries++) {
		rc = probe_access(p, cmd->va, c->data, c->data_len, write);
		if (rc <= 0)
			return rc;
		/* a replayed fault: the entry may be gone again before we look */
		rc = balun_fault(p->dev, p->space, cmd->va, c->data_len,
				 write ? BALUN_ACCESS_WRITE : BALUN_ACCESS_READ);
		if (rc && rc != -EBUSY)
			return rc;
	}
	return -EAGAIN;
}

/* ---- the other commands ---- */

/* whether a copy waits now; looks for a moment */
static bool cmd_paused(struct probe *p)
{
	uint64_t limit = env_now_ns() + PAUSED_LOOK_NS, now;
	bool pausing;

	env_mutex_lock(&p->lock);
	while (!p->pausing && (now = env_now_ns()) < limit)
		env_cond_wait(&p->cond, &p->lock, limit - now);
	pausing = p->pausing;
	env_mutex_unlock(&p->lock);
	return pausing;
}

/* Lock held. */
static void cmd_fail(struct probe *p, const struct probe_cmd *cmd)
{
	p->plan[cmd->op] =
		(struct probe_plan){ .nth = cmd->nth, .count = cmd->count, .err = cmd->err };
}

/* Lock held. */
static int cmd_control(struct probe *p, enum probe_code code, struct probe_cmd *cmd)
{
	switch (code) {
	case PROBE_CMD_RUN_BEGIN:
		p->running++;
		return 0;
	case PROBE_CMD_RUN_END:
		p->running -= !!p->running;
		env_cond_wake(&p->cond);
		return 0;
	case PROBE_CMD_LOOKUP:
		cmd->entry = table_get(&p->table, cmd->va);
		return 0;
	case PROBE_CMD_MAPPED:
		cmd->n = table_count(&p->table, cmd->va, cmd->len);
		return 0;
	case PROBE_CMD_COUNTS:
		cmd->counts = p->n;
		return 0;
	case PROBE_CMD_FAIL:
		cmd_fail(p, cmd);
		return 0;
	case PROBE_CMD_FAILED:
		cmd->n = p->plan[cmd->op].came;
		return 0;
	case PROBE_CMD_PAUSE:
		p->pause_nth = cmd->nth;
		return 0;
	case PROBE_CMD_RESUME:
		p->pause_nth = 0;
		p->pausing = false;
		env_cond_wake(&p->cond);
		return 0;
	default:
		return -EINVAL;
	}
}

static void cmd_breach(struct probe *p, struct probe_cmd *cmd)
{
	const char *noted = probe_noted(p);

	cmd->text[0] = 0;
	if (noted)
		memcpy(cmd->text, noted, PROBE_TEXT);
}

int probe_command(void *priv, struct balun_space *space, const struct balun_command *c)
{
	struct probe_cmd *cmd = c->arg;
	struct probe *p = priv;
	int rc;

	if (c->arg_len != sizeof(*cmd) || cmd->op >= PROBE_NR)
		return -EINVAL;
	switch (c->code) {
	case PROBE_CMD_READ:
	case PROBE_CMD_WRITE:
		return cmd_access(p, cmd, c);
	case PROBE_CMD_PAUSED:
		cmd->n = cmd_paused(p);
		return 0;
	case PROBE_CMD_LOST:
		balun_device_lost(p->dev);
		return 0;
	case PROBE_CMD_BREACH:
		cmd_breach(p, cmd);
		return 0;
	case PROBE_CMD_LAST_BREACH:
		probe_take_last(cmd->text);
		return 0;
	default:
		env_mutex_lock(&p->lock);
		rc = cmd_control(p, c->code, cmd);
		env_mutex_unlock(&p->lock);
		return rc;
	}
}
