// The master's OpenAPI document, read into what the documentation page shows. Only what our own document uses.

export type Parameter = { name: string; in: string; required: boolean; description: string; type: string };
export type Property = { name: string; type: string; required: boolean; description: string };
export type Schema = { name: string; description: string; properties: Property[]; values: string[]; variants: string[] };
export type Answer = { status: string; description: string; type: string };
export type Call = {
	id: string;
	method: string;
	path: string;
	summary: string;
	description: string;
	tag: string;
	parameters: Parameter[];
	body: string | null;
	answers: Answer[];
};
export type Document = { title: string; version: string; description: string; groups: { tag: string; calls: Call[] }[]; schemas: Map<string, Schema> };

type Json = Record<string, unknown>;
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

function object(value: unknown): Json {
	return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
}
function list(value: unknown): unknown[] {
	return Array.isArray(value) ? value : [];
}
function text(value: unknown): string {
	return typeof value === 'string' ? value : '';
}

/** A schema as one would write its type: `Vm[]`, `string | null`, `Record<string, number>`. */
export function typeOf(schema: unknown): string {
	const it = object(schema);
	const ref = text(it.$ref);
	if (ref) return ref.split('/').at(-1) ?? '';
	const union = [...list(it.oneOf), ...list(it.anyOf)];
	if (union.length > 0) return [...new Set(union.map(typeOf))].join(' | ');
	if (list(it.allOf).length > 0) return list(it.allOf).map(typeOf).join(' & ');
	if (list(it.enum).length > 0) return list(it.enum).map((value) => JSON.stringify(value)).join(' | ');
	if ('const' in it) return JSON.stringify(it.const);
	const types = Array.isArray(it.type) ? it.type.map(text) : [text(it.type)];
	return types
		.map((type) => {
			if (type === 'array') return `${typeOf(it.items)}[]`;
			if (type === 'object' && it.additionalProperties) return `Record<string, ${typeOf(it.additionalProperties)}>`;
			return type || 'any';
		})
		.join(' | ');
}

/** The names of schemas within a type text. */
export function namesIn(type: string): string[] {
	return type.match(/[A-Z][A-Za-z0-9_]*/g) ?? [];
}

function properties(schema: unknown): Property[] {
	const it = object(schema);
	const required = list(it.required);
	return [
		...list(it.allOf).flatMap(properties),
		...Object.entries(object(it.properties)).map(([name, property]) => ({
			name,
			type: typeOf(property),
			required: required.includes(name),
			description: text(object(property).description)
		}))
	];
}

export function readDocument(json: unknown): Document {
	const document = object(json);
	const info = object(document.info);
	const byTag = new Map<string, Call[]>();
	for (const [path, item] of Object.entries(object(document.paths)))
		for (const method of METHODS) {
			if (!(method in object(item))) continue;
			const call = object(object(item)[method]);
			const tag = text(list(call.tags)[0]) || path.split('/')[3] || 'other';
			const content = Object.values(object(object(call.requestBody).content))[0];
			const read: Call = {
				id: `${method}-${path}`.replace(/[^a-z0-9]+/gi, '-'),
				method: method.toUpperCase(),
				path,
				summary: text(call.summary),
				description: text(call.description),
				tag,
				parameters: [...list(object(item).parameters), ...list(call.parameters)].map((parameter) => {
					const one = object(parameter);
					return { name: text(one.name), in: text(one.in), required: one.required === true, description: text(one.description), type: typeOf(one.schema) };
				}),
				body: content ? typeOf(object(content).schema) : null,
				answers: Object.entries(object(call.responses)).map(([status, answer]) => {
					const media = Object.values(object(object(answer).content))[0];
					return { status, description: text(object(answer).description), type: media ? typeOf(object(media).schema) : '' };
				})
			};
			byTag.set(tag, [...(byTag.get(tag) ?? []), read]);
		}
	const schemas = new Map<string, Schema>();
	for (const [name, schema] of Object.entries(object(object(document.components).schemas))) {
		const it = object(schema);
		schemas.set(name, {
			name,
			description: text(it.description),
			properties: properties(schema),
			values: list(it.enum).map(String),
			variants: list(it.oneOf).map((variant) => {
				const fields = properties(variant);
				return fields.length > 0 ? `{ ${fields.map((field) => `${field.name}: ${field.type}`).join(', ')} }` : typeOf(variant);
			})
		});
	}
	return {
		title: text(info.title),
		version: text(info.version),
		description: text(info.description),
		// What only old programs use comes last.
		groups: [...byTag].map(([tag, calls]) => ({ tag, calls })).sort((a, b) => Number(a.tag === 'before v1') - Number(b.tag === 'before v1')),
		schemas
	};
}
