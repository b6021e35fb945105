//! What goes between a sandbox's owner and its first process: what the one writes the other reads, and
//! neither believes the other more than it must.

use sandbox::Command;
use sandbox::hostile::{self, Packet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The steps whose second, or only, text is content and no path.
const FILE: u32 = 3;
const SECCOMP: u32 = 16;
/// Commands in a conversation.
const COMMANDS: usize = 3;
/// Connections in a conversation.
const CONNECTIONS: usize = 2;
/// Packets in a conversation.
const PACKETS: usize = 64;

/// A plan is refused, or read in steps whose paths end where the kernel ends them; what the owner writes
/// is read as it was meant.
pub fn init_plan(bytes: &[u8]) {
    let layers = hostile::layers(bytes).map(|it| vec![it]);
    for steps in [hostile::plan(bytes), layers].into_iter().flatten() {
        assert!(steps.len() <= bytes.len() / 4, "every step takes something");
        for step in &steps {
            let paths = match step.code {
                FILE => &step.texts[..1],
                SECCOMP => &[],
                _ => &step.texts[..],
            };
            let is_cut = paths.iter().any(|it| it.contains(&0));
            assert!(!is_cut, "{step:?} means another path to the kernel");
        }
    }
    let (plan, said) = hostile::written(bytes);
    assert_eq!(hostile::plan(&plan), Some(said));
}

/// A command is refused, or all of its bytes are read; what the owner writes is read as it was meant.
pub fn init_command(bytes: &[u8]) {
    if let Some(read) = hostile::command(bytes) {
        let texts = [&read.directory].into_iter().chain(&read.strings);
        let texts: Vec<_> = texts.chain(&read.candidates).collect();
        let length: usize = texts.iter().map(|it| it.len() + 1).sum();
        assert_eq!(length + 12, bytes.len(), "nothing is left over");
        assert!(read.words > 0 && read.words <= read.strings.len());
    }
    let lines = bytes.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let (mut words, mut variables) = (Vec::new(), Vec::new());
    for line in lines {
        match line.as_bytes().iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = line.as_bytes().split_at(at);
                let pair = (OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
                variables.push(pair);
            }
            None => words.push(line),
        }
    }
    is_read_inside(&Command::new(words, "/workspace/repository").with_env(variables));
}

/// What is written of a command is read inside as that command.
pub(crate) fn is_read_inside(command: &Command) {
    let Some(written) = hostile::command_bytes(command) else {
        return;
    };
    let read = hostile::command(&written).expect("what is written can be read");
    assert_eq!(OsStr::from_bytes(&read.directory), command.cwd);
    let (words, variables) = read.strings.split_at(read.words);
    assert!(command.argv.iter().map(|it| it.as_bytes()).eq(words));
    let pairs = command.env.iter().map(|(name, value)| {
        let pair = [name.as_bytes(), b"=", value.as_bytes()];
        pair.concat()
    });
    assert!(pairs.eq(variables.iter().cloned()));
    let program = command.argv[0].as_bytes();
    assert!(!read.candidates.is_empty());
    assert!(read.candidates.iter().all(|it| it.ends_with(program)));
}

/// A program chooses its name, and nothing else that is read of it.
pub fn init_status(bytes: &[u8]) {
    // Whatever the kernel says, it is read to its end.
    let _none: Option<i32> = hostile::living_parent(bytes);
    let _none: u64 = hostile::sum(bytes, &[b"RssAnon:"]);
    let name: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|it| *it != 0)
        .take(15)
        .collect();
    let stat = |state: &str, threads: u32| {
        let zeros = "0 ".repeat(15);
        let rest = format!(") {state} 7 {zeros}{threads} 0 0 0\n");
        [b"42 (", name.as_slice(), rest.as_bytes()].concat()
    };
    assert_eq!(hostile::living_parent(&stat("R", 1)), Some(7));
    assert_eq!(hostile::living_parent(&stat("Z", 1)), None);
    assert_eq!(hostile::living_parent(&stat("Z", 2)), Some(7));
    // As the kernel escapes a name there.
    let escaped = name.iter().flat_map(|byte| match byte {
        b'\n' => b"\\n".to_vec(),
        b'\\' => b"\\\\".to_vec(),
        byte => vec![*byte],
    });
    let mut status = b"Name:\t".to_vec();
    status.extend(escaped);
    status.extend(b"\nRssAnon:\t     300 kB\nRssShmem:\t      4 kB\nThreads:\t2\n");
    assert_eq!(hostile::sum(&status, &[b"RssAnon:", b"RssShmem:"]), 304);
    assert_eq!(hostile::sum(&status, &[b"Threads:"]), 2);
}

/// Each command starts once and ends once, by what was said of it and of no other; so does what becomes
/// of each connection; and every descriptor that comes is closed in the end.
pub fn packets(bytes: &[u8]) {
    let packets = packets_of(bytes);
    let told = hostile::converse(COMMANDS, CONNECTIONS, &packets).expect("sockets");
    let (mut started, mut ended) = ([None; COMMANDS], [None; COMMANDS]);
    let mut refused = [const { Vec::new() }; COMMANDS];
    let mut connected = [None; CONNECTIONS];
    for packet in &packets {
        if packet.bytes.len() != 4 * hostile::WORDS {
            break;
        }
        let mut words = [0u32; hostile::WORDS];
        for (word, four) in words.iter_mut().zip(packet.bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes(four.try_into().unwrap());
        }
        let [tag, id, status, first, second, ..] = words;
        let connection = (id as usize).wrapping_sub(1 + COMMANDS);
        if tag == hostile::CONNECTED && connection < CONNECTIONS {
            connected[connection].get_or_insert(packet.descriptors > 0);
        }
        let command = (id as usize).wrapping_sub(1);
        if command >= COMMANDS || ended[command].is_some() {
            continue;
        }
        match tag {
            hostile::STARTED => started[command] = Some(true),
            hostile::REFUSED => {
                started[command].get_or_insert(false);
                ended[command] = Some(None);
            }
            hostile::CALL_REFUSED => {
                let (call, refused) = (
                    hostile::call(status, [first, second]),
                    &mut refused[command],
                );
                assert!(!call.to_string().is_empty() && !call.remedy().is_empty());
                if refused.len() < hostile::MOST_TOLD && !refused.contains(&call) {
                    refused.push(call);
                }
            }
            hostile::EXITED => {
                started[command] = Some(true);
                ended[command] = Some(Some(ExitStatus::from_raw(status.cast_signed())));
            }
            _ => {}
        }
    }
    assert_eq!(told.started, started);
    assert_eq!(told.connected, connected);
    for ((told, ended), (listed, refused)) in told
        .ended
        .iter()
        .zip(ended)
        .zip(told.refused.iter().zip(&refused))
    {
        if let Some(Some(exit)) = told {
            assert_eq!(listed, refused, "those of this command and of no other");
            assert!(exit.refused.is_none() || exit.refused == refused.last().copied());
            assert!(
                exit.refused.is_none() || !exit.success(),
                "it explains nothing"
            );
        }
        let told = told.map(|exit| exit.map(|it| (it.code, it.signal)));
        let ended = ended.map(|exit| exit.map(|it| (it.code(), it.signal())));
        assert_eq!(told, ended);
    }
    let running = ended.iter().filter(|it| it.is_none()).count();
    assert_eq!(told.running, running);
    assert!(told.all_closed, "a descriptor stays open");
}

/// Packets that some bytes stand for: how many descriptors, how many bytes, and those.
fn packets_of(mut bytes: &[u8]) -> Vec<Packet> {
    const LONGEST: usize = 48;
    let mut all = Vec::new();
    while let [descriptors, length, rest @ ..] = bytes {
        let length = (usize::from(*length) % LONGEST + 1).min(rest.len());
        let (taken, rest) = rest.split_at(length);
        bytes = rest;
        // An empty one is the end of the conversation.
        if taken.is_empty() || all.len() >= PACKETS {
            break;
        }
        all.push(Packet {
            bytes: taken.to_vec(),
            descriptors: usize::from(*descriptors) % 13,
        });
    }
    all
}
