//! The files of a process: deleted, replaced, mapped again.

use std::fs;
use std::path::{Path, PathBuf};

use unwind_mem::elf::{ElfModules, Origin};
use unwind_mem::process::ProcessError;

use crate::children::{Target, skip, stop};
use crate::stacks::walk;

/// A copy of a program that can be deleted.
fn copy_of_sleep(name: &str) -> Option<PathBuf> {
    let original = ["/usr/bin/sleep", "/bin/sleep"].into_iter().find(|path| Path::new(path).is_file());
    let Some(original) = original else {
        skip("there is no /bin/sleep");
        return None;
    };
    let path = std::env::temp_dir().join(format!("unwind-mem-{}-{name}", std::process::id()));
    fs::copy(original, &path).unwrap();
    Some(path)
}

/// Starts the copy, then lets `change` do something to the file.
fn sleep_with_changed_file(name: &str, change: impl FnOnce(&Path)) -> Option<(Target, ElfModules, PathBuf)> {
    let path = copy_of_sleep(name)?;
    let target = Target::start(path.to_str().unwrap(), &["600"]);
    let Some(target) = target else {
        fs::remove_file(&path).unwrap();
        return None;
    };
    target.wait_until_asleep(1);
    let before = ElfModules::of_process(target.pid()).map(|modules| build_id(&modules, &path));
    change(&path);
    let _ = fs::remove_file(&path);
    match ElfModules::of_process(target.pid()) {
        Ok(modules) => {
            // Still the contents of the old file.
            assert_eq!(Ok(build_id(&modules, &path)), before);
            Some((target, modules, path))
        }
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn build_id(modules: &ElfModules, path: &Path) -> Option<Vec<u8>> {
    let module = modules.modules().iter().find(|module| module.path == path).expect("the program");
    module.build_id().map(<[u8]>::to_vec)
}

fn walk_is_complete(target: &Target, modules: &ElfModules, path: &Path) {
    let Some(stopped) = stop(target.pid()) else { return };
    let program = modules.modules().iter().find(|module| module.path == path).unwrap();
    for (frames, end) in walk(&stopped, modules).into_values() {
        assert!(end.is_complete(), "{end}");
        let in_program = |pc: u64| program.ranges.iter().any(|range| range.contains(&pc));
        assert!(frames.iter().any(|frame| in_program(frame.pc.lookup_address())), "{frames:x?}");
    }
}

#[test]
fn a_deleted_program() {
    let Some((target, modules, path)) = sleep_with_changed_file("deleted", |path| {
        fs::remove_file(path).unwrap();
    }) else {
        return;
    };
    let program = modules.modules().iter().find(|module| module.path == path).unwrap();
    assert!(program.deleted);
    walk_is_complete(&target, &modules, &path);
}

#[test]
fn a_program_replaced_by_another() {
    let Some((target, modules, path)) = sleep_with_changed_file("replaced", |path| {
        let other = path.with_extension("new");
        fs::copy(std::env::current_exe().unwrap(), &other).unwrap();
        fs::rename(&other, path).unwrap();
    }) else {
        return;
    };
    walk_is_complete(&target, &modules, &path);
}

#[test]
fn this_process() {
    let modules = ElfModules::of_process(std::process::id()).unwrap();
    let code = u64::try_from((this_process as fn() as *const ()).addr()).unwrap();
    let module = modules.find(code).unwrap();
    assert_eq!(module.path, std::env::current_exe().unwrap());
    assert!(matches!(module.origin, Origin::File(_)));
    let mut index = Default::default();
    let sources = modules.sources(&mut index);
    assert!(sources.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(
        sources.iter().any(|source| (source.start..source.end).contains(&code) && source.source.is_some())
    );
}

#[test]
fn processes_without_memory() {
    // Kernel threads are children of kthreadd, which is process 2 outside of pid namespaces.
    let is_kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    if is_kthreadd {
        assert_eq!(ElfModules::of_process(2).err(), Some(ProcessError::NoUserMemory));
    } else {
        skip("there are no kernel threads to see");
    }
    assert_eq!(ElfModules::of_process(u32::MAX).err(), Some(ProcessError::NoSuchProcess));
}
