//! What the owner and the inside say to each other: one file, compiled into both.
//!
//! They share a `SOCK_SEQPACKET` socket. Every message is [`WORDS`] little-endian `u32` words, the
//! first of which is its tag; descriptors travel beside it. The plan and the commands themselves
//! are byte strings in memory files, because they can be larger than a message.

/// Words per message.
pub const WORDS: usize = 6;

/// To the helper: `[tag, v1 descriptors, v2 descriptors, score, bytes]` with the plan, then descriptors
/// of `tasks` files to join, then at most one descriptor of a version 2 cgroup's directory.
pub const PLAN: u32 = 1;
/// To process 1: `[tag, id, flags, payload bytes, size]` with the payload, and the three streams
/// unless [`TERMINAL`] is among the flags. The size is the terminal's: rows in its upper half, columns
/// in its lower.
pub const EXEC: u32 = 2;
/// To process 1: `[tag, id, signal]`: for the whole tree of that command.
pub const SIGNAL: u32 = 3;
/// To the helper, instead of [`PLAN`]: `[tag, score]`: it makes no namespace, and serves itself.
pub const UNSEALED: u32 = 4;

/// To the helper: `[tag, plan bytes]` with the plan (how many: u32, and for each: target, upper, work,
/// flags: u32, count: u32, lowers…) and the descriptor of a mount namespace: the layers take the place
/// of what is mounted there at the targets.
pub const SWITCH: u32 = 6;
/// To process 1: `[tag]`: it lends its mount namespace.
pub const LEND: u32 = 5;
/// To the first process of a container beside a sandbox's, instead of [`PLAN`]: `[tag, score, bytes,
/// asking]` with both filters of [`STEP_SECCOMP`], one behind the other; so many bytes of them are the
/// first. It makes no namespace, filters its own calls and those of whatever it starts, and serves its
/// container.
pub const BESIDE: u32 = 7;
/// To the helper, before [`PLAN`]: `[tag, score]`: it makes the namespaces that hang on no plan, and waits.
pub const AHEAD: u32 = 10;
/// To process 1: `[tag, port]`: whether anything answers there on its loopback.
pub const REACH: u32 = 8;
/// To process 1: `[tag, id, port, family]`: it makes a connection to that port of its loopback.
pub const CONNECT: u32 = 9;

/// From process 1, before anything else: `[tag]` with a pidfd of itself.
pub const BORN: u32 = 16;
/// From process 1: `[tag, port, told]`, with the listener of that port if there is one; the last says
/// whether refused calls are told ([`CALL_REFUSED`]).
pub const READY: u32 = 17;
/// From either: `[tag, stage, errno, index of the step]`.
pub const FAILED: u32 = 18;
/// From a minder: `[tag, id]`, with the owner's end of the terminal if there is one.
pub const STARTED: u32 = 19;
/// From a minder or process 1: `[tag, id, stage, errno]`: the command was not started.
pub const REFUSED: u32 = 20;
/// From a minder or process 1: `[tag, id, wait status]`.
pub const EXITED: u32 = 21;
/// From process 1: `[tag, which]`: the watcher has killed everything.
pub const STRUCK: u32 = 22;
/// From process 1: `[tag, processes]` with its mount namespace: how many processes live inside
/// beside itself and the minders.
pub const LENT: u32 = 23;
/// From the helper: `[tag]`: the layers are in place.
pub const SWITCHED: u32 = 24;

/// From process 1: `[tag, errno]`: whether a connection was made; 0 if it was.
pub const REACHED: u32 = 25;

/// From process 1: `[tag, id, errno]` with the socket, whose connection may be under way, or without it
/// and why.
pub const CONNECTED: u32 = 26;

/// From process 1: `[tag, id, number, first, second]`: a call was refused to that command; the arguments are
/// those that the filter looked at, or 0. It comes before the command's end. Each is told once, and of one
/// command [`MOST_TOLD`] at most.
pub const CALL_REFUSED: u32 = 27;
/// From the first process of a container: `[tag, wait status]`: how the inside's process 1 has ended, which
/// nobody but its parent can ask the kernel.
pub const ENDED: u32 = 28;
/// Of [`CALL_REFUSED`].
pub const MOST_TOLD: usize = 8;

/// From process 1: `[tag]`: no further call is told, of whatever command.
pub const CALLS_OVER: u32 = 29;

/// Families of [`CONNECT`]: 127.0.0.1.
pub const FAMILY_4: u32 = 4;
/// ::1.
pub const FAMILY_6: u32 = 6;

/// Stages of [`FAILED`].
pub const STAGE_CGROUP: u32 = 1;
/// The namespaces, or the clone in them.
pub const STAGE_CLONE: u32 = 2;
/// The maps of users and groups.
pub const STAGE_IDS: u32 = 3;
/// The new root.
pub const STAGE_ROOT: u32 = 4;
/// A step of the plan.
pub const STAGE_STEP: u32 = 5;
/// Dropping capabilities and the like.
pub const STAGE_SEAL: u32 = 6;
/// Entering the sandbox from outside.
pub const STAGE_ENTER: u32 = 7;
/// Mounting the new layers: nothing has changed.
pub const STAGE_LAYERS: u32 = 8;
/// Putting them in place: nothing has changed.
pub const STAGE_PLACE: u32 = 9;
/// Putting them in place: the old ones are gone, and the new ones are not there.
pub const STAGE_LOST: u32 = 10;

/// Stages of [`REFUSED`].
pub const REFUSED_FORK: u32 = 1;
/// The working directory.
pub const REFUSED_DIRECTORY: u32 = 2;
/// The program.
pub const REFUSED_EXEC: u32 = 3;
/// The payload or the streams.
pub const REFUSED_STREAMS: u32 = 4;
/// The terminal.
pub const REFUSED_TERMINAL: u32 = 5;

/// Flag of [`EXEC`]: what the command leaves running goes on.
pub const KEEP_BACKGROUND: u32 = 1;
/// Flag of [`EXEC`]: the command gets a terminal in place of its streams.
pub const TERMINAL: u32 = 2;

/// Flag of [`EXEC`]: no program is run; the payload's words are a task, a path, and the name that what is
/// there has in the archive, or nothing. The streams carry the archive; what failed is said on the third:
/// what was being done, `errno`, and the path.
pub const CARRY: u32 = 4;

/// Tasks of [`CARRY`]: packs what is at the path.
pub const CARRY_OUT: &[u8] = b"out";
/// Packs headers alone, with what tells whether a file is still the one that it was.
pub const CARRY_LIST: &[u8] = b"list";
/// Packs those files and links below the path that the input names, a zero byte behind each.
pub const CARRY_PICK: &[u8] = b"pick";
/// Unpacks into the directory at the path, or under that name where there is none.
pub const CARRY_IN: &[u8] = b"in";
/// Unpacks into the directory at the path, which is made where there is none.
pub const CARRY_FILL: &[u8] = b"fill";

/// What a task of [`CARRY`] was doing when it failed: understanding what it is to do, or reading a file.
pub const CARRY_READ: u32 = 1;
/// Entering the directory that paths begin at.
pub const CARRY_ENTER: u32 = 2;
/// Opening.
pub const CARRY_OPEN: u32 = 3;
/// Looking at an entry.
pub const CARRY_LOOK: u32 = 4;
/// Listing a directory.
pub const CARRY_LIST_DIRECTORY: u32 = 5;
/// Making an entry.
pub const CARRY_MAKE: u32 = 6;
/// Taking away what is in an entry's place.
pub const CARRY_REPLACE: u32 = 7;
/// Writing a file.
pub const CARRY_WRITE: u32 = 8;
/// Reading the archive.
pub const CARRY_RECEIVE: u32 = 9;
/// Writing the archive.
pub const CARRY_SEND: u32 = 10;

/// Values of [`STRUCK`].
pub const STRUCK_MEMORY: u32 = 1;
/// Too many processes.
pub const STRUCK_PROCESSES: u32 = 2;

/// Where the host's root is while the plan is carried out.
pub const OLD_ROOT: &str = "/.host";
/// Where a container's first process finds its owner: a directory that this container alone has.
pub const MEETING: &str = "/.skep";
/// The socket in it, of the kind that both ends share elsewhere, too.
pub const MEETING_SOCKET: &str = "/.skep/socket";
/// Where a container has the parts of its host.
pub const BEHIND: &str = "/.skep-host";
/// Where it has our program.
pub const PROGRAM: &str = "/.skep-init";

/// Steps of the plan. A string is its length (`u32`), its bytes, and a zero byte.
///
/// `path, mode: u32`
pub const STEP_DIRECTORY: u32 = 1;
/// `target, path`
pub const STEP_SYMLINK: u32 = 2;
/// `path, mode: u32, content`
pub const STEP_FILE: u32 = 3;
/// `path, options, mount flags: u32`
pub const STEP_TMPFS: u32 = 4;
/// `source, target, attributes: u32, flags: u32`
pub const STEP_BIND: u32 = 5;
/// `path`
pub const STEP_PROC: u32 = 6;
/// `path`
pub const STEP_DEVPTS: u32 = 7;
/// `path`
pub const STEP_MASK: u32 = 8;
/// `target, upper, work, flags: u32, count: u32, lowers…`
pub const STEP_OVERLAY: u32 = 9;
/// `path`
pub const STEP_READ_ONLY: u32 = 10;
/// `name`
pub const STEP_HOSTNAME: u32 = 11;
/// no arguments
pub const STEP_LOOPBACK: u32 = 12;
/// `port: u32`
pub const STEP_LISTEN: u32 = 13;
/// `resource: u32, value: u64`
pub const STEP_RLIMIT: u32 = 14;
/// `handled: u64, scoped: u64, attribute bytes: u32, count: u32, (path, rights: u64)…`
pub const STEP_LANDLOCK: u32 = 15;
/// `asking, plain`: two filters that refuse the same calls (each a string of 8-byte instructions). The first
/// asks process 1 for the answer to some, which tells of them; it is empty where nobody is to be asked. The
/// second, which asks nobody, is for where the kernel gives no listener, as where an outer filter has one.
pub const STEP_SECCOMP: u32 = 16;
/// `bytes: u64, processes: u64, places: u32`; the largest value is "no limit"
pub const STEP_WATCH: u32 = 17;
/// no arguments: the host's root goes away
pub const STEP_DETACH: u32 = 18;

/// `source, attributes: u32, flags: u32`: as a bind, but kept aside for [`STEP_ATTACH`]
pub const STEP_STASH: u32 = 19;
/// `target`: attaches the oldest mount that is kept aside
pub const STEP_ATTACH: u32 = 20;
/// no arguments: there are no more masks
pub const STEP_END_MASKS: u32 = 21;
/// `count: u32, paths…`: as masks, at places that the kernel made and that are mostly files
pub const STEP_HIDE: u32 = 22;
/// `source, target, attributes: u32, count: u32, names…`: every entry of one directory appears in
/// another, but for those names; links as links
pub const STEP_SPREAD: u32 = 23;

/// `file, directory`: what masks are made of from here on, whatever is mounted over it
pub const STEP_MASKS: u32 = 24;

/// `path`: memory that is never swapped
pub const STEP_UNSWAPPED: u32 = 30;

/// Of [`STEP_WATCH`]: `/dev/shm` is in memory.
pub const PLACE_SHM: u32 = 1;
/// Of [`STEP_WATCH`]: `/tmp` is in memory.
pub const PLACE_TMP: u32 = 2;
/// Of [`STEP_WATCH`]: the home is in memory.
pub const PLACE_HOME: u32 = 4;

/// Flag of [`STEP_BIND`]: a missing source is no failure.
pub const BIND_OPTIONAL: u32 = 1;
/// Flag of [`STEP_OVERLAY`].
pub const OVERLAY_VOLATILE: u32 = 1;
/// Mounts kept aside by [`STEP_STASH`], at most.
pub const MOST_STASHED: u32 = 256;
/// Workspaces in one sandbox, at most.
pub const MOST_WORKSPACES: u32 = 8;
