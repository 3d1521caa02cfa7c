// The filter box: `state:running agent:lab-1 label:team=web words`, read into the API's parameters.

export type VmFilter = {
	q: string;
	state: string | null;
	agent: string | null;
	label: string | null;
};
export type Query = { filter: VmFilter; errors: string[] };

const STATES = [
	'creating',
	'starting',
	'running',
	'restarting',
	'stopping',
	'stopped',
	'suspending',
	'suspended',
	'deleted',
	'unknown',
	'error'
];

/** Reads the box; what cannot be meant becomes an error that says what can. */
export function parseQuery(text: string): Query {
	const filter: VmFilter = { q: '', state: null, agent: null, label: null };
	const errors: string[] = [];
	const words: string[] = [];
	for (const token of text.trim().split(/\s+/).filter(Boolean)) {
		const match = /^(state|agent|machine|label):(.*)$/i.exec(token);
		if (!match) {
			words.push(token);
			continue;
		}
		const [, field = '', value = ''] = match;
		if (!value) continue;
		switch (field.toLowerCase()) {
			case 'state': {
				const wrong = value
					.toLowerCase()
					.split(',')
					.find((state) => state && !STATES.includes(state));
				if (wrong) errors.push(`there is no state “${wrong}”; one of ${STATES.join(', ')}`);
				else filter.state = value.toLowerCase();
				break;
			}
			case 'label':
				filter.label = value;
				break;
			default:
				filter.agent = value;
		}
	}
	filter.q = words.join(' ');
	return { filter, errors };
}

/** The text with one field set, replaced or (with `null`) taken out. */
export function withField(text: string, field: 'state' | 'agent' | 'label', value: string | null): string {
	const rest = text
		.trim()
		.split(/\s+/)
		.filter((token) => token && !token.toLowerCase().startsWith(`${field}:`));
	return (value === null ? rest : [`${field}:${value}`, ...rest]).join(' ');
}

/** Whether a VM that we were just told of may belong into a list with this filter. */
export function matches(
	filter: VmFilter,
	vm: { name: string; state: string; agent_id: string; labels?: Record<string, string> }
): boolean {
	if (filter.state && !filter.state.split(',').includes(vm.state)) return false;
	const agents = list(filter.agent);
	if (agents.length > 0 && !agents.some((agent) => (agent.endsWith('*') ? vm.agent_id.startsWith(agent.slice(0, -1)) : vm.agent_id === agent)))
		return false;
	for (const label of list(filter.label)) {
		const [key = '', ...value] = label.split('=');
		const has = vm.labels?.[key];
		if (has === undefined || (value.length > 0 && has !== value.join('='))) return false;
	}
	// Words may also be found in what only the master searches: then it has to say whether it belongs.
	return true;
}

function list(text: string | null): string[] {
	return (text ?? '').split(',').filter(Boolean);
}
