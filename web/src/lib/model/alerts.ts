// What somebody should look at on a machine, although the rest of it may work: each with what to do.
import type { Agent } from '$lib/api/types';

export type AlertLine = {
	key: string;
	tone: 'warn' | 'bad';
	title: string;
	text: string;
	since?: string;
	/** What the page can offer to do about it. */
	offer?: 'join' | 'rotate' | 'approve';
};

const TITLES: Record<string, string> = { shared_key: 'Two machines use its key' };

/** The alerts of a machine, the gravest first; `master` is this master's version. */
export function alertsOf(agent: Agent, master: string | null): AlertLine[] {
	const lines: AlertLine[] = (agent.alerts ?? []).map((alert) => ({
		key: alert.code,
		tone: 'bad',
		title: TITLES[alert.code] ?? 'Look at this',
		text: alert.message,
		since: alert.since,
		offer: alert.code === 'shared_key' ? 'rotate' : undefined
	}));
	if (agent.link === 'direct' && agent.message && (agent.status === 'error' || agent.status === 'offline'))
		lines.push({ key: 'unreachable', tone: 'bad', title: `Not reached at ${agent.api_url}`, text: agent.message, since: agent.status_since, offer: 'join' });
	else if (agent.message && agent.status !== 'online')
		lines.push({ key: 'message', tone: 'warn', title: agent.status === 'revoked' ? 'It is revoked' : 'It does not answer', text: agent.message, since: agent.status_since });
	for (const [i, warning] of (agent.warnings ?? []).entries()) lines.push({ key: `warning-${i}`, tone: 'warn', title: 'Warning', text: warning });
	const theirs = agent.info?.version ?? agent.tunnel?.version;
	if (master && theirs && theirs !== master && agent.link !== 'in_process')
		lines.push({
			key: 'version',
			tone: 'warn',
			title: 'Another version',
			text: `its agent is batwa ${theirs}, this master is ${master}; one version apart works both ways, but bring them together when you can`
		});
	return lines;
}

/** Whether somebody should look at this machine although it is online. */
export function needsALook(agent: Agent): boolean {
	return (agent.alerts?.length ?? 0) > 0 || (agent.warnings?.length ?? 0) > 0;
}
