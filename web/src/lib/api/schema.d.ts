// Written by hand until the master's OpenAPI document exists; then generated (`npm run schema`).
type Json<T> = { content: { 'application/json': T } };
type Params<Q = never, P = never> = { query?: Q; path?: P; header?: never; cookie?: never };
type None = never;
type Get<R, Q = None, P = None> = { parameters: Params<Q, P>; requestBody?: never; responses: { 200: Json<R>; default: Json<Problem> } };
type Send<B, R, P = None, Q = None> = { parameters: Params<Q, P>; requestBody: Json<B>; responses: { 200: Json<R>; default: Json<Problem> } };
type Do<R, P = None, Q = None> = { parameters: Params<Q, P>; requestBody?: never; responses: { 200: Json<R>; default: Json<Problem> } };
type Items<T> = { items: T[] };
type Problem = components['schemas']['Problem'];
type S = components['schemas'];
type Id = { id: string };
type AgentPath = { agent: string };
type VmPath = { agent: string; vm: string };

export interface paths {
	'/api/v1/setup': { get: Get<S['SetupState']>; post: Send<S['Setup'], S['CurrentSession']> };
	'/api/v1/session': { get: Get<S['CurrentSession']>; post: Send<S['SignIn'], S['CurrentSession']>; delete: Do<unknown> };
	'/api/v1/session/password': { post: Send<S['ChangePassword'], unknown> };
	'/api/v1/sessions': { get: Get<Items<S['Session']>> };
	'/api/v1/sessions/{id}': { delete: Do<unknown, Id> };
	'/api/v1/tokens': { get: Get<Items<S['Token']>>; post: Send<S['CreateToken'], S['CreatedToken']> };
	'/api/v1/tokens/{id}': { delete: Do<unknown, Id> };
	'/api/v1/users': { get: Get<Items<S['User']>>; post: Send<S['CreateUser'], S['User']> };
	'/api/v1/users/{id}': { patch: Send<S['UpdateUser'], S['User'], Id>; delete: Do<unknown, Id> };
	'/api/v1/audit': { get: Get<Items<S['AuditEntry']> & { next_cursor?: string | null }, { limit?: number; cursor?: string }> };
	'/api/v1/agents': { get: Get<S['AgentList'], { limit?: number; cursor?: string }> };
	'/api/v1/agents/{agent}': { get: Get<S['Agent'], None, AgentPath>; patch: Send<S['UpdateAgent'], S['Agent'], AgentPath>; delete: Do<unknown, AgentPath> };
	'/api/v1/agents/{agent}/approve': { post: Send<S['ApproveAgent'], S['Agent'], AgentPath> };
	'/api/v1/agents/{agent}/cordon': { post: Do<S['Agent'], AgentPath> };
	'/api/v1/agents/{agent}/uncordon': { post: Do<S['Agent'], AgentPath> };
	'/api/v1/agents/{agent}/revoke': { post: Do<S['Agent'], AgentPath> };
	'/api/v1/agent-keys': { get: Get<Items<S['AgentKey']>>; post: Send<S['CreateAgentKey'], S['CreatedAgentKey']> };
	'/api/v1/agent-keys/{id}': { delete: Do<unknown, Id> };
	'/api/v1/vms': { get: Get<S['VmList'], { q?: string; agent?: string; state?: string; label?: string; sort?: string; limit?: number; cursor?: string }> };
	'/api/v1/agents/{agent}/vms': { post: Send<S['CreateVm'], S['Operation'], AgentPath> };
	'/api/v1/agents/{agent}/vms/{vm}': { get: Get<S['ListedVm'], None, VmPath>; delete: Do<S['Operation'], VmPath, { purge?: boolean }> };
	'/api/v1/agents/{agent}/vms/{vm}/{action}': { post: Send<Record<string, unknown>, S['Operation'], VmPath & { action: string }> };
	'/api/v1/operations': { get: Get<S['OperationList'], { state?: string; agent?: string; vm?: string; limit?: number; cursor?: string }> };
	'/api/v1/operations/{id}': { get: Get<S['Operation'], None, Id> };
	'/api/v1/operations/{id}/cancel': { post: Do<S['Operation'], Id> };
	'/api/v1/operations/{id}/log': { get: Get<Items<S['LogLine']>, None, Id> };
	'/api/v1/images': { get: Get<Items<S['ListedImage']>, { agent?: string }> };
	'/api/v1/terminals': { get: Get<Items<S['ListedTerminal']>>; post: Send<S['OpenAgentTerminal'], S['ListedTerminal']> };
	'/api/v1/terminals/{id}': { delete: Do<unknown, Id> };
}

type Nullable<T> = T | null;
type ByteSize = number | string;
type Labels = Record<string, string>;

export interface components {
	schemas: {
		ByteSize: ByteSize;
		Problem: { code: string; status: number; title: string; detail: string; errors?: S['FieldError'][]; request_id?: Nullable<string> };
		FieldError: { field: string; message: string };
		SetupState: { needed: boolean };
		Setup: { code: string; username: string; password: string };
		SignIn: { username: string; password: string };
		Role: 'viewer' | 'operator' | 'admin';
		User: { id: string; name: string; role: S['Role']; terminal: boolean; created_at: string; last_signed_in_at?: Nullable<string> };
		CreateUser: { name: string; password: string; role: S['Role']; terminal?: Nullable<boolean> };
		UpdateUser: { role?: Nullable<S['Role']>; terminal?: Nullable<boolean>; password?: Nullable<string> };
		CurrentSession: { user: S['User']; session_id?: Nullable<string>; token_id?: Nullable<string>; warnings: string[]; version: string };
		Session: { id: string; address: string; user_agent: string; created_at: string; last_used_at: string; expires_at: string; current: boolean };
		ChangePassword: { current_password: string; new_password: string };
		CreateToken: { name: string; expires_in_s?: Nullable<number>; role?: Nullable<S['Role']> };
		Token: { id: string; name: string; role: S['Role']; owner: string; created_at: string; expires_at?: Nullable<string>; last_used_at?: Nullable<string> };
		CreatedToken: { id: string; token: string };
		AuditEntry: { seq: number; at: string; actor: string; via: string; address: string; action: string; target: string; result: string; detail?: Nullable<string>; request_id: string; hash: string };
		DriverKind: 'multipass' | 'qemu' | 'fake';
		Capabilities: { shell?: boolean; console?: boolean; suspend?: boolean; trash?: boolean; cloud_init?: boolean };
		HealthStatus: 'ok' | 'slow' | 'stuck' | 'missing';
		Health: { status: S['HealthStatus']; message?: Nullable<string>; since: string };
		Acceleration: { name: string; reason: string };
		DriverStatus: { kind: S['DriverKind']; version?: Nullable<string>; capabilities: S['Capabilities']; health: S['Health']; acceleration?: Nullable<S['Acceleration']> };
		HostFacts: { hostname: string; os: string; arch: string; cpus: number; memory: ByteSize; memory_available?: Nullable<ByteSize>; disk_total?: Nullable<ByteSize>; disk_free?: Nullable<ByteSize>; load?: Nullable<number[]> };
		AgentInfo: { agent_id: string; version: string; protocol_version: number; host: S['HostFacts']; drivers: S['DriverStatus'][]; labels?: Labels; started_at: string; clock: string };
		AgentStatus: 'online' | 'offline' | 'error' | 'pending' | 'revoked';
		LinkKind: 'in_process' | 'direct' | 'tunnel';
		Registration: { hostname: string; api_url: string; address: string; fingerprint?: Nullable<string>; first_seen: string; last_seen: string };
		Agent: { id: string; name: string; status: S['AgentStatus']; message?: Nullable<string>; status_since: string; link: S['LinkKind']; api_url: string; legacy: boolean; labels: Labels; last_seen?: Nullable<string>; vm_count: number; cordoned: boolean; info?: Nullable<S['AgentInfo']>; registrations?: S['Registration'][] };
		ApproveAgent: { fingerprint?: Nullable<string> };
		UpdateAgent: { name?: Nullable<string>; labels?: Nullable<Labels> };
		CreateAgentKey: { name: string; agent_id?: Nullable<string> };
		AgentKey: { id: string; name: string; agent_id?: Nullable<string>; fingerprint: string; created_at: string; last_used_at?: Nullable<string> };
		CreatedAgentKey: { id: string; key: string };
		AgentList: { items: S['Agent'][]; next_cursor?: Nullable<string>; counts: { total: number; statuses: Record<string, number> } };
		VmState: 'creating' | 'starting' | 'running' | 'restarting' | 'stopping' | 'stopped' | 'suspending' | 'suspended' | 'deleted' | 'unknown' | 'error';
		Readiness: 'booting' | 'cloud_init' | 'ready' | 'unreachable';
		VmUsage: { cpu_percent?: Nullable<number>; memory_used?: Nullable<ByteSize>; disk_used?: Nullable<ByteSize>; load?: Nullable<number[]>; measured_at: string };
		ListedVm: { agent_id: string; agent_name: string; stale: boolean; labels?: Labels; name: string; state: S['VmState']; state_since: string; message?: Nullable<string>; driver: S['DriverKind']; readiness?: Nullable<S['Readiness']>; ipv4?: string[]; image?: Nullable<string>; release?: Nullable<string>; cpus?: Nullable<number>; memory?: Nullable<ByteSize>; disk?: Nullable<ByteSize>; usage?: Nullable<S['VmUsage']>; acceleration?: Nullable<string>; created_at?: Nullable<string>; started_at?: Nullable<string>; shutdown_at?: Nullable<string>; observed_at: string; actions?: Record<string, string | null>; operations?: string[] };
		VmList: { items: S['ListedVm'][]; next_cursor?: Nullable<string>; counts: S['VmCounts'] };
		VmCounts: { total: number; states: Record<string, number> };
		CreateVm: { name: string; image?: string; cpus?: number; memory?: ByteSize; disk?: ByteSize; cloud_init?: Nullable<string>; driver?: Nullable<S['DriverKind']>; labels?: Labels };
		OperationKind: 'create' | 'start' | 'stop' | 'restart' | 'suspend' | 'resume' | 'delete' | 'recover' | 'purge';
		OperationState: 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';
		Stage: 'resolving_image' | 'downloading' | 'verifying' | 'building_image' | 'preparing' | 'booting' | 'waiting_for_ssh' | 'cloud_init' | 'starting' | 'stopping' | 'restarting' | 'suspending' | 'deleting' | 'recovering' | 'cleaning_up';
		OperationError: { code: string; detail: string; hint?: Nullable<string>; field?: Nullable<string>; log?: string[] };
		Operation: { id: string; kind: S['OperationKind']; agent_id: string; vm: string; state: S['OperationState']; stage?: Nullable<S['Stage']>; progress?: Nullable<number>; bytes_done?: Nullable<ByteSize>; bytes_total?: Nullable<ByteSize>; message?: Nullable<string>; error?: Nullable<S['OperationError']>; late?: boolean; requested_by?: Nullable<string>; created_at: string; started_at?: Nullable<string>; finished_at?: Nullable<string> };
		OperationList: { items: S['Operation'][]; next_cursor?: Nullable<string>; counts: { total: number; states: Record<string, number> } };
		LogLine: { at: string; text: string };
		ListedImage: { agent_id: string; name: string; aliases?: string[]; title: string; driver: S['DriverKind']; download_size?: Nullable<ByteSize>; cached: boolean; min_disk?: Nullable<ByteSize>; min_memory?: Nullable<ByteSize>; origin: string; cloud_config: boolean; default?: boolean };
		TerminalKind: 'shell' | 'console';
		OpenAgentTerminal: { agent_id?: Nullable<string>; vm: string; kind?: S['TerminalKind']; cols: number; rows: number };
		ListedTerminal: { agent_id: string; id: string; vm: string; kind: S['TerminalKind']; cols: number; rows: number; created_at: string; viewers: number; offset: number; oldest_offset: number; ttl_s: number; resumable: boolean; opened_by?: Nullable<string> };
		Event:
			| { type: 'agent'; agent: S['Agent'] }
			| { type: 'agent_removed'; agent_id: string }
			| { type: 'vm'; vm: S['ListedVm'] }
			| { type: 'vm_removed'; agent_id: string; name: string }
			| { type: 'operation'; operation: S['Operation'] }
			| { type: 'terminal'; terminal: S['ListedTerminal'] }
			| { type: 'terminal_removed'; id: string }
			| { type: 'reload' };
	};
}
