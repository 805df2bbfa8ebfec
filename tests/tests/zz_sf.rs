use arbitrary::{Arbitrary, Unstructured};
use unwind_tests::fuzzing::DwarfInput;
use unwind_tests::synthetic::*;
#[test]
fn zz() {
    let data = std::fs::read(std::env::var("ZZ").unwrap()).unwrap();
    let input = DwarfInput::arbitrary(&mut Unstructured::new(&data)).unwrap();
    match input {
        DwarfInput::Sections(arch, s) => println!("{arch:?} {s:x?}"),
        DwarfInput::Module(arch, mut chain, spec, damage) => {
            chain.frames.truncate(6);
            println!("{arch:?} {spec:?} damage {damage:?}");
            for frame in &mut chain.frames {
                frame.kind = TableKind::Dwarf;
                frame.better_is_broken = false;
                frame.shape &= !0x8000;
                if frame.role == Role::BoundedCall {
                    frame.role = Role::Call;
                }
            }
            let stack = lay_out(arch, &chain);
            let mut module = describe(&stack, &spec);
            for (section, at, value) in &damage {
                let bytes = match section % 3 {
                    0 => module.hdr.as_mut().map(|(bytes, _)| bytes),
                    1 => module.debug_frame.as_mut().map(|section| &mut section.bytes.data),
                    _ => module.eh_frame.as_mut().map(|section| &mut section.bytes.data),
                };
                if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                    let at = usize::from(*at) % bytes.len();
                    println!("damage {section} at {at:#x}: {:#x} -> {value:#x}", bytes[at]);
                    bytes[at] = *value;
                }
            }
            if let Some(s) = &module.eh_frame {
                println!("eh_frame svma {:#x}", module.sections().eh_frame.unwrap().svma);
                std::fs::write("/tmp/zz.eh", &s.bytes.data).unwrap();
            }
            if let Some(s) = &module.debug_frame {
                std::fs::write("/tmp/zz.debug", &s.bytes.data).unwrap();
            }
            println!("bias {:#x}", module.bias);
        }
    }
}
