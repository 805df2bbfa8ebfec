//! Programs that are busy for some seconds: what is on the machine, and always this one.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::random::Random;

/// A program and what it is to do.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        command
    }
}

/// A folder for what the programs read and write, gone with this.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("walk-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("room for a small file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing of it is missed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const PYTHON: &str = "
import json, re, random, hashlib, zlib
def depth(tree): return 1 + max([depth(child) for child in tree] or [0])
def grow(n): return [grow(n - 1) for _ in range(random.randrange(1, 4))] if n else []
while True:
    tree = grow(9)
    text = json.dumps(tree, indent=1)
    assert json.loads(text) == tree
    re.sub(r'(\\[\\s*)+\\]', lambda found: str(depth(tree)), text)
    hashlib.sha256(zlib.compress(text.encode())).hexdigest()
    sorted(text.split(), key=lambda word: (len(word), word))
";

const PERL: &str = "
sub fib { my $n = shift; $n < 2 ? $n : fib($n - 1) + fib($n - 2) }
while (1) {
    fib(16);
    my @words = map { join '', map { chr(97 + rand 26) } 1 .. 8 } 1 .. 2000;
    my %seen; $seen{$_}++ for sort { $a cmp $b } @words;
    (join ' ', @words) =~ s/(a|b+)(\\w*?)z/$2$1/gr for 1 .. 5;
}
";

const BASH: &str = "
f() { if (( $1 > 1 )); then f $(( $1 - 1 )); local s=\"${s}x\"; else s=${s//a/b}; fi; }
while :; do s=abcabcabc; f 7; [[ $s =~ (b|c)+ ]]; printf -v t '%s %d' \"$s\" 7; done
";

const SQL: &str = "
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)
SELECT count(DISTINCT substr(hex(i * 7919), 1, 5)), max(length(printf('%d-%s', i, abs(i % 97)))) FROM n
GROUP BY i % 31 ORDER BY 2, 1;
";

/// Those that are there; for the others, a line is printed.
pub(crate) fn all(folder: &Folder) -> Vec<Program> {
    let mut programs = Vec::new();
    let exe = std::env::current_exe().expect("this program's path");
    programs.push(Program { name: "this program", path: exe.clone(), arguments: vec!["--busy".into()] });
    let mut add = |name: &'static str, path: Option<PathBuf>, arguments: Vec<OsString>| match path {
        Some(path) => programs.push(Program { name, path, arguments }),
        None => println!("SKIPPED {name}: not on this machine"),
    };
    add("python3", in_path("python3"), vec!["-c".into(), PYTHON.into()]);
    add("perl", in_path("perl"), vec!["-e".into(), PERL.into()]);
    add("bash", in_path("bash"), vec!["-c".into(), BASH.into()]);
    add("sqlite3", in_path("sqlite3"), vec![":memory:".into(), SQL.into()]);
    let speed = ["speed", "-seconds", "1", "sha256", "aes-256-cbc", "rsa2048", "ecdsap256", "ecdhx25519"];
    add("openssl", in_path("openssl"), speed.map(OsString::from).to_vec());
    let texts = [1, 2].map(|seed| folder.write(&format!("text-{seed}"), &text(seed)));
    let diff = ["diff", "--no-index", "--patience", "--word-diff"].map(OsString::from).into_iter();
    add("git", in_path("git"), diff.chain(texts.map(OsString::from)).collect());
    let rust = folder.write("generated.rs", &rust());
    let out = folder.0.join("generated.rlib");
    let rustc = ["--edition=2021", "--crate-type=rlib", "-O", "-o"].map(OsString::from).into_iter();
    add("rustc", in_path("rustc"), rustc.chain([out.into(), rust.into()]).collect());
    let c = folder.write("generated.c", &c());
    let cc1 = ["-quiet", "-O2", "-g", "-o", "/dev/null"].map(OsString::from).into_iter();
    add("cc1", cc1_of_gcc(), cc1.chain([c.into()]).collect());
    let gdb = ["-nx", "-batch", "-ex", "info types .", "-ex", "info functions ."].map(OsString::from);
    add("gdb", in_path("gdb"), gdb.into_iter().chain([exe.clone().into()]).collect());
    add("objdump", in_path("objdump"), vec!["-d".into(), "-C".into(), "-l".into(), exe.into()]);
    programs
}

fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The compiler proper, which gcc runs.
fn cc1_of_gcc() -> Option<PathBuf> {
    let output = Command::new(in_path("gcc")?).arg("-print-prog-name=cc1").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| Path::is_absolute(path) && path.is_file())
}

/// Lines of words.
fn text(seed: u64) -> String {
    // The same text, a tenth of its words another.
    let (mut random, mut other) = (Random::new(7), Random::new(seed));
    let mut text = String::new();
    for at in 0..1_500_000 {
        let word = random.below(4_000);
        let word = if other.below(10) == 0 { other.below(4_000) } else { word };
        let end = if at % 9 == 8 { '\n' } else { ' ' };
        write!(text, "w{word:x}{end}").expect("into a string");
    }
    text
}

/// Many small generic functions.
fn rust() -> String {
    let mut source = String::from("use std::collections::{BTreeMap, HashMap};\n");
    for number in 0..700 {
        write!(
            source,
            "#[derive(Clone, Debug, PartialEq, PartialOrd)] pub struct S{number}<T> {{ a: T, b: Vec<T>, c: Option<Box<Self>> }}\n\
             pub fn f{number}<T: Clone + Ord + std::fmt::Debug>(map: &BTreeMap<T, Vec<T>>, key: &T) -> String {{\n\
                 map.range(key.clone()..).flat_map(|(k, v)| v.iter().map(move |x| (k, x)))\n\
                     .filter(|(k, x)| k < x).map(|(k, x)| format!(\"{{k:?}}{{x:?}}\")).collect::<Vec<_>>().join(\",\")\n\
             }}\n\
             pub fn g{number}(map: &HashMap<String, u32>) -> Vec<String> {{\n\
                 let mut all: Vec<_> = map.iter().filter(|(_, v)| **v % {modulus} == 0).collect();\n\
                 all.sort_by_key(|(k, v)| (**v, k.len()));\n\
                 let tree = all.iter().map(|(k, v)| (**v, vec![k.len() as u32])).collect();\n\
                 vec![f{number}(&tree, &{number}), format!(\"{{:?}}\", S{number} {{ a: 1u8, b: vec![], c: None }})]\n\
             }}\n",
            modulus = number % 7 + 2,
        )
        .expect("into a string");
    }
    source
}

/// Many functions with loops, branches and switches.
fn c() -> String {
    let mut source = String::new();
    for number in 0..4_000 {
        write!(
            source,
            "struct s{number} {{ int a[{size}]; struct s{number} *next; double d; }};\n\
             static double h{number}(struct s{number} *s, int n) {{ return n ? s->d * n + h{number}(s->next, n - 1) : s->a[0]; }}\n\
             int f{number}(struct s{number} *s, int n) {{\n\
                 int sum = 0;\n\
                 for (int i = 0; i < n; i++) {{\n\
                     switch (s->a[i % {size}] & 7) {{ case 0: sum += i; break; case 3: sum ^= n / (i + 1); s = s->next; break;\n\
                         case 5: for (int j = 0; j < i; j++) sum += s->a[j % {size}] * j; break; default: sum -= (int)s->d; }}\n\
                     if (sum > 1000 && s->next) sum = f{number}(s->next, n - 1) + (int)h{number}(s, n);\n\
                 }}\n\
                 return sum;\n\
             }}\n",
            size = number % 13 + 3,
        )
        .expect("into a string");
    }
    source
}
