//! The target `c_calls`: calls of the C library in any order, with arguments that are invalid in
//! every way that the library can detect.

use core::ffi::{c_char, c_int, c_void};
use core::marker::PhantomData;

use keytally_core::{CACHE_LINE_LEN, CacheLine};
use keytally_ffi::{
    Handle, In, KT_COMPOUND_HEADERS_SIZE, KT_GATE_HANDLE_SIZE, KT_HEADERS_SIZE, KT_KEY_SIZE,
    KT_MAX_FIELDS, KT_MAX_PARTS, KT_POLICY_SIZE, KT_QUOTA_NAME_SIZE, KT_SECTIONS_SIZE,
    KT_SYSTEM_CLOCK, Memory, Number, Out, kt_account_info, kt_bytes, kt_charge, kt_compound,
    kt_field, kt_flaw, kt_gate, kt_gate_config, kt_group, kt_key, kt_key_info, kt_key_parts,
    kt_limiter, kt_name, kt_new_key, kt_part, kt_plan, kt_plan_info, kt_quota, kt_request,
    kt_settlement, kt_status, kt_verdict,
};

use crate::bytes::{Bytes, POLICIES};

/// The size of each of the two memories for tables, in lines.
const LINES: usize = 96;
/// Plans, most of them with sections.
const SECTIONS: [&str; 7] = [
    "100/minute, 1000/hour",
    "3/second",
    "5/minute; team: 9/minute; group write: 2/minute",
    "unlimited; group tokens: 1000/hour warn 50% 90%; group write: 5/s",
    "5/minute warn 80%",
    "3/day, 9/week, 20/month@30; team: sliding 5/minute; group write: unlimited",
    "1/s; group write: 1/s; group tokens: 1/s; team: 1/x",
];
/// The number of handles of each kind. A call may use one before it is initialized.
const HANDLES: usize = 3;
const PEPPER: [u8; 32] = [9; 32];
const NOW_MS: u64 = 1_767_225_600_000;
/// The words of the largest handle.
const HANDLE_WORDS: usize = KT_GATE_HANDLE_SIZE / 8;
/// The content of outputs before a call.
const UNTOUCHED: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// The memory of a handle, which is a C struct. It is larger than any handle, and its address never
/// changes.
struct HandleMemory<T>(*mut [u64; HANDLE_WORDS], PhantomData<T>);

impl<T> HandleMemory<T> {
    /// Returns memory in which every word is `filling`.
    fn new(filling: u64) -> Self {
        Self(Box::into_raw(Box::new([filling; HANDLE_WORDS])), PhantomData)
    }

    fn pointer(&self) -> *mut T {
        self.0.cast()
    }

    /// Copies another handle over this one, which a C program could do by mistake.
    fn copy_from(&self, other: &Self) {
        // SAFETY: Both pointers are to boxes of this type, which live as long as the handles. They
        // may be equal, which `copy` allows.
        unsafe { core::ptr::copy(other.0, self.0, 1) };
    }
}

impl<T> Drop for HandleMemory<T> {
    fn drop(&mut self) {
        // SAFETY: The pointer is that of the box in `new`, and is not used afterwards.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Calls the functions of the C library with valid and invalid arguments.
///
/// Pointers may be NULL, misaligned or to memory of another kind. Lengths may exceed the address
/// space. Handles may be uninitialized, closed, copied, or of the other kind.
///
/// No call crashes or returns `KT_INTERNAL`, and a call that fails writes no output.
pub fn c_calls(bytes: &[u8]) {
    let mut bytes = Bytes::new(bytes);
    let filling = bytes.pick(&[0, UNTOUCHED, u64::MAX, 1]);
    let memories: [Vec<CacheLine>; 2] =
        core::array::from_fn(|_| (0..LINES).map(|_| CacheLine::new()).collect());
    let world = World {
        limiters: core::array::from_fn(|_| HandleMemory::new(filling)),
        gates: core::array::from_fn(|_| HandleMemory::new(filling)),
        memories: &memories,
    };
    let mut keys = vec![(kt_key { text: [0; KT_KEY_SIZE] }, 1)];
    for _ in 0..128 {
        if bytes.is_empty() {
            break;
        }
        world.call(&mut bytes, &mut keys);
    }
    for gate in &world.gates {
        keytally_ffi::kt_gate_close(handle(gate.pointer()));
    }
    for limiter in &world.limiters {
        keytally_ffi::kt_limiter_close(handle(limiter.pointer()));
    }
}

/// The handles and memories that calls use.
struct World<'m> {
    limiters: [HandleMemory<kt_limiter>; HANDLES],
    gates: [HandleMemory<kt_gate>; HANDLES],
    memories: &'m [Vec<CacheLine>; 2],
}

impl World<'_> {
    /// Makes one call, and checks its outputs.
    fn call(&self, bytes: &mut Bytes<'_>, keys: &mut Vec<(kt_key, u64)>) {
        let call = bytes.below(38);
        let limiter = self.limiter(bytes);
        let gate = self.gate(bytes);
        let now_ms = bytes.pick(&[
            NOW_MS,
            NOW_MS + 1000,
            NOW_MS + 3_600_000,
            0,
            u64::MAX - 1,
            KT_SYSTEM_CLOCK,
        ]);
        let policy = bytes.pick(POLICIES).as_bytes();
        let (text, text_len) = text(bytes, policy);
        let with_sections = bytes.pick(&SECTIONS).as_bytes();
        let (sections, sections_len) = self::text(bytes, with_sections);
        let groups = groups(bytes);
        let (groups, groups_len) = (maybe_wrong(bytes, &groups), bytes.pick(&[0, 0, 1, 2, 9]));
        let scopes = [c_name(b"read"), c_name(bytes.pick(&[&b"write"[..], b"read", b"no such"]))];
        let (scopes, scopes_len) = (maybe_wrong(bytes, &scopes), bytes.pick(&[0, 0, 1, 2]));
        let (subject, subject_len) = input(bytes, b"203.0.113.9");
        let (key, key_id) = keys[bytes.below(keys.len().min(256))];
        let api_key: Vec<u8> = key
            .text
            .iter()
            .map(|&character| character.cast_unsigned())
            .take_while(|&byte| byte != 0)
            .collect();
        let (api_key, api_key_len) = input(bytes, &api_key);
        let charge = [charge(bytes, now_ms)];
        let charge = maybe_wrong(bytes, &charge);
        let seed = [[bytes.byte(); 16]];
        let seed = maybe_wrong(bytes, &seed);
        let entropy = [[bytes.byte(); 24]];
        let entropy = maybe_wrong(bytes, &entropy);
        let new_key = [kt_new_key {
            env: c_text(b"live"),
            env_len: bytes.pick(&[4, 4, 3, 0, usize::MAX]),
            plan: if bytes.byte() < 200 { c_text(b"default") } else { In::NULL },
            plan_len: bytes.pick(&[7, 0, 7, 3]),
            size: bytes.pick(&[64, 48, 40, 39, 0, u32::MAX]),
            account: bytes.pick(&[7, 8]),
            expires_s: bytes.pick(&[0, 1, u32::MAX]),
            reserved_: bytes.pick(&[0, 0, 0, 1]),
            scopes,
            scopes_len,
        }];
        let new_key = maybe_wrong(bytes, &new_key);
        let plans = [kt_plan { name: c_text(b"default"), name_len: 7, sections, sections_len }];
        let config = [kt_gate_config {
            plans: maybe_wrong(bytes, &plans),
            plans_len: bytes.pick(&[1, 1, 1, 0, usize::MAX]),
            prefix: c_text(b"kt"),
            prefix_len: bytes.pick(&[2, 2, 2, 0, 1]),
            size: bytes.pick(&[80, 64, 40, 39, u32::MAX]),
            keys: bytes.pick(&[5, 40, 0, u32::MAX]),
            teams: bytes.pick(&[0, 0, 1, 3, u32::MAX]),
            reserved_: bytes.pick(&[0, 0, 0, 1]),
            scopes,
            scopes_len,
            described: c_text(b"minute"),
            described_len: if scopes_len == 1 { 6 } else { 0 },
        }];
        let config = maybe_wrong(bytes, &config);
        let pepper =
            [kt_bytes { data: maybe_wrong(bytes, &PEPPER), len: bytes.pick(&[32, 32, 31, 0]) }];
        let (peppers, peppers_len) =
            (maybe_wrong(bytes, &pepper), bytes.pick(&[1, 1, 1, 0, 5, usize::MAX]));
        let (memory, memory_len) = self.memory(bytes);
        let cost = bytes.cost();
        let size = bytes.pick(&[56, 56, 48, 16, 8, u32::MAX]);
        let (need, need_len) = (scopes, scopes_len);
        let (patience, reserved_) = (Number(bytes.pick(&[0, 1, 2, 3])), bytes.pick(&[0, 0, 1]));
        let request = [kt_request {
            size,
            cost,
            now_ms,
            groups,
            groups_len,
            need,
            need_len,
            patience,
            reserved_,
        }];
        let request = maybe_wrong(bytes, &request);
        let mut outputs = Outputs::new();
        let verdict = outputs.verdict(bytes);
        use keytally_ffi as c;
        let status = match call {
            0 => c::kt_limiter_init(
                memory,
                memory_len,
                text,
                text_len,
                bytes.pick(&[8, 1, 100, 0]),
                seed,
                self.new_limiter(bytes),
            ),
            1 => c::kt_limiter_attach(memory, memory_len, self.new_limiter(bytes)),
            2 => c::kt_gate_init(
                memory,
                memory_len,
                config,
                peppers,
                peppers_len,
                self.new_gate(bytes),
            ),
            3 => c::kt_gate_attach(memory, memory_len, peppers, peppers_len, self.new_gate(bytes)),
            4 | 5 => c::kt_limiter_check(limiter, subject, subject_len, cost, now_ms, verdict),
            6 => c::kt_limiter_check_request(limiter, subject, subject_len, request, verdict),
            7 => c::kt_limiter_peek(limiter, subject, subject_len, cost, now_ms, verdict),
            8 => c::kt_limiter_refund(limiter, subject, subject_len, charge, now_ms, verdict),
            9 => c::kt_limiter_settle(limiter, subject, subject_len, charge, cost, now_ms, verdict),
            10 => c::kt_limiter_reset(limiter, subject, subject_len, now_ms, verdict),
            32 => {
                let named = (groups, groups_len, need, need_len);
                self.check_all(bytes, (api_key, api_key_len), (subject, subject_len), named, now_ms)
            }
            11 | 12 => c::kt_gate_check(gate, api_key, api_key_len, cost, now_ms, verdict),
            13 | 33 => compound(|out| match call {
                13 => c::kt_gate_check_request(gate, api_key, api_key_len, request, out),
                _ => c::kt_gate_peek_request(gate, api_key, api_key_len, request, out),
            }),
            34 => {
                let settlement = [kt_settlement {
                    size: bytes.pick(&[32, 32, 16, 8]),
                    cost,
                    has_cost: bytes.byte() % 2,
                    overdraw: bytes.byte() % 2,
                    reserved_: [0; 6],
                    groups,
                    groups_len,
                }];
                let settlement = maybe_wrong(bytes, &settlement);
                let uncharged = &mut [u32::MAX; 9];
                let status = compound(|out| {
                    let uncharged = new(uncharged.as_mut_ptr());
                    c::kt_gate_settle_all(
                        gate, key_id, charge, settlement, now_ms, verdict, uncharged, out,
                    )
                });
                assert!(status == kt_status::KT_OK || *uncharged == [u32::MAX; 9]);
                status
            }
            35 => c::kt_gate_set_scopes(gate, key_id, scopes, scopes_len),
            36 => self.accounts(gate, bytes, now_ms),
            37 => {
                let mut size = usize::MAX;
                let status = c::kt_gate_config_size(config, output(&mut size));
                assert_eq!(status == kt_status::KT_OK, size != usize::MAX);
                status
            }
            14 => c::kt_gate_peek(gate, api_key, api_key_len, cost, now_ms, verdict),
            15 => c::kt_gate_refund(gate, key_id, charge, now_ms, verdict),
            16 => c::kt_gate_settle(gate, key_id, charge, cost, now_ms, verdict),
            17 => c::kt_gate_reset(gate, key_id, now_ms, verdict),
            18 | 19 => {
                let mut issued = (kt_key { text: [0; KT_KEY_SIZE] }, 0);
                let status = c::kt_gate_issue(
                    gate,
                    new_key,
                    entropy,
                    now_ms,
                    output(&mut issued.0),
                    output(&mut issued.1),
                );
                if status == kt_status::KT_OK {
                    keys.push(issued);
                }
                status
            }
            20 => c::kt_gate_import(
                gate,
                api_key,
                api_key_len,
                new_key,
                now_ms,
                outputs.number(bytes),
            ),
            21 => {
                let mut rotated = (kt_key { text: [0; KT_KEY_SIZE] }, key_id);
                let status =
                    c::kt_gate_rotate(gate, key_id, 0, 1, entropy, now_ms, output(&mut rotated.0));
                if status == kt_status::KT_OK {
                    keys.push(rotated);
                }
                status
            }
            22 => c::kt_gate_revoke(gate, key_id),
            23 => c::kt_gate_assign(
                gate,
                key_id,
                c_text(b"default"),
                bytes.pick(&[7, 0, 3, usize::MAX]),
            ),
            24 => c::kt_gate_set_plan(gate, maybe_wrong(bytes, &plans)),
            25 => self.inspect(gate, limiter, bytes, key_id, now_ms),
            26 => {
                c::kt_gate_close(gate);
                c::kt_limiter_close(limiter);
                kt_status::KT_OK
            }
            27 => {
                // Copies handles, and changes the memory of a table.
                self.gates[bytes.below(HANDLES)].copy_from(&self.gates[bytes.below(HANDLES)]);
                self.limiters[bytes.below(HANDLES)].copy_from(&self.limiters[bytes.below(HANDLES)]);
                let line = &self.memories[bytes.below(2)][bytes.below(LINES)];
                line.store(bytes.below(8), bytes.word());
                kt_status::KT_OK
            }
            28 => c::kt_gate_take_over(gate),
            29 => c::kt_gate_verify(gate, now_ms, Some(flaw), core::ptr::null_mut()),
            30 => respond(bytes),
            _ => c::kt_key_parse(
                api_key,
                api_key_len,
                output(&mut kt_key_parts {
                    key_id: 0,
                    prefix: [0; 9],
                    env: [0; 9],
                    reserved_: [0; 14],
                }),
            ),
        };
        assert_ne!(status, kt_status::KT_INTERNAL, "call {call} failed internally");
        outputs.check(status == kt_status::KT_OK);
    }

    /// Calls a function that reads a table, or that selects or corrects its clock.
    fn inspect(
        &self,
        gate: Handle<'_, kt_gate>,
        limiter: Handle<'_, kt_limiter>,
        bytes: &mut Bytes<'_>,
        key_id: u64,
        now_ms: u64,
    ) -> kt_status {
        use keytally_ffi as c;
        let mut buffer = [0; KT_POLICY_SIZE];
        let len = bytes.pick(&[KT_POLICY_SIZE, 8, 0, usize::MAX]);
        let mut written = 0;
        let (mut half, mut word) = (0, 0);
        let mut plan =
            kt_plan_info { name: [0; 17], sections: [0; KT_SECTIONS_SIZE], reserved_: [0; 239] };
        let mut info: Box<[kt_key_info; 1]> = Box::new([zeroed_info()]);
        match bytes.below(16) {
            13 => c::kt_gate_team_capacity(gate, output(&mut half)),
            14 => c::kt_gate_scope(
                gate,
                bytes.below(3),
                new(buffer.as_mut_ptr()),
                len.min(KT_POLICY_SIZE),
                output(&mut written),
            ),
            15 => c::kt_gate_section(
                gate,
                bytes.below(9),
                new(buffer.as_mut_ptr()),
                len.min(KT_POLICY_SIZE),
                output(&mut written),
            ),
            0 => c::kt_limiter_policy(
                limiter,
                new(buffer.as_mut_ptr()),
                len.min(KT_POLICY_SIZE),
                output(&mut written),
            ),
            1 => c::kt_limiter_capacity(limiter, output(&mut half)),
            2 => c::kt_limiter_live_subjects(limiter, now_ms, output(&mut word)),
            3 => c::kt_gate_capacity(gate, output(&mut half)),
            4 => c::kt_gate_plan(gate, bytes.byte(), output(&mut plan)),
            5 => c::kt_gate_env(
                gate,
                bytes.byte(),
                new(buffer.as_mut_ptr()),
                len.min(KT_POLICY_SIZE),
                output(&mut written),
            ),
            6 => c::kt_gate_key(gate, key_id, now_ms, output(&mut info[0])),
            7 => c::kt_gate_list(gate, now_ms, Some(visit), core::ptr::null_mut()),
            8 => c::kt_gate_use_system_clock(gate),
            9 => c::kt_limiter_use_system_clock(limiter),
            10 => c::kt_gate_correct_clock(gate, now_ms, output(&mut word)),
            11 => c::kt_limiter_correct_clock(limiter, now_ms, output(&mut word)),
            _ => c::kt_gate_list(gate, now_ms, None, core::ptr::null_mut()),
        }
    }

    /// Calls a function about the accounts of a gate.
    fn accounts(&self, gate: Handle<'_, kt_gate>, bytes: &mut Bytes<'_>, now_ms: u64) -> kt_status {
        use keytally_ffi as c;
        let account = bytes.pick(&[7, 7, 8, 0]);
        let quotas =
            bytes.pick(&[&b"5/minute"[..], b"9/hour", b"", b"unlimited", b"1/s; team: 1/s"]);
        let (quotas, quotas_len) = text(bytes, quotas);
        match bytes.below(7) {
            0 => {
                let mut info = account_info();
                let status = c::kt_gate_account(gate, account, now_ms, output(&mut info));
                if status == kt_status::KT_OK {
                    check_account(&info);
                }
                status
            }
            1 => c::kt_gate_accounts(gate, now_ms, Some(visit_account), core::ptr::null_mut()),
            2 => c::kt_gate_set_suspended(gate, account, bytes.byte() % 2),
            3 => c::kt_gate_assign_account(gate, account, c_text(b"default"), bytes.pick(&[7, 3])),
            4 => c::kt_gate_reset_account(gate, account, now_ms),
            _ => c::kt_gate_limit_account(gate, account, quotas, quotas_len),
        }
    }

    /// Charges a key and subjects together. A call that fails writes no output.
    fn check_all<'c>(
        &'c self,
        bytes: &mut Bytes<'_>,
        key: (In<'c, u8>, usize),
        subject: (In<'c, u8>, usize),
        named: (In<'c, kt_group<'c>>, usize, In<'c, kt_name<'c>>, usize),
        now_ms: u64,
    ) -> kt_status {
        let (groups, groups_len, need, need_len) = named;
        let parts: [kt_part<'_>; KT_MAX_PARTS] = core::array::from_fn(|_| {
            let none = (handle(core::ptr::null_mut()), handle(core::ptr::null_mut()));
            let (is_named, (gate, limiter), (text, text_len)) = match bytes.byte() {
                0..=99 => (true, (self.gate(bytes), none.1), key),
                100..=231 => (false, (none.0, self.limiter(bytes)), subject),
                232..=239 => (true, (none.0, self.limiter(bytes)), subject),
                240..=247 => (false, (self.gate(bytes), self.limiter(bytes)), subject),
                _ => (false, none, key),
            };
            let (groups_len, need_len) = if is_named { (groups_len, need_len) } else { (0, 0) };
            let cost = bytes.cost();
            kt_part {
                gate,
                limiter,
                text,
                text_len,
                cost,
                patience: Number(bytes.pick(&[0, 0, 1, 2, 3])),
                groups,
                groups_len,
                need,
                need_len,
            }
        });
        let count = bytes.pick(&[1, 2, 2, 3, 8, 0, 9, usize::MAX]);
        let parts = maybe_wrong(bytes, &parts);
        let charges = bytes.byte() < 200;
        compound(|out| match charges {
            true => keytally_ffi::kt_check_all(parts, count, now_ms, out),
            false => keytally_ffi::kt_peek_all(parts, count, now_ms, out),
        })
    }

    /// Returns a handle of a limiter, or rarely an invalid one.
    fn limiter(&self, bytes: &mut Bytes<'_>) -> Handle<'_, kt_limiter> {
        let right = self.limiters[bytes.below(HANDLES)].pointer();
        handle(match bytes.byte() {
            0..=229 => right,
            230..=239 => core::ptr::null_mut(),
            240..=247 => right.wrapping_byte_add(1),
            _ => self.gates[0].pointer().cast(),
        })
    }

    /// Returns a handle of a gate, or rarely an invalid one.
    fn gate(&self, bytes: &mut Bytes<'_>) -> Handle<'_, kt_gate> {
        let right = self.gates[bytes.below(HANDLES)].pointer();
        handle(match bytes.byte() {
            0..=229 => right,
            230..=239 => core::ptr::null_mut(),
            240..=247 => right.wrapping_byte_add(4),
            _ => self.limiters[0].pointer().cast(),
        })
    }

    /// Returns the output for a handle of a limiter, or rarely an invalid one.
    fn new_limiter(&self, bytes: &mut Bytes<'_>) -> Out<'_, kt_limiter> {
        new(match bytes.byte() {
            0..=239 => self.limiters[bytes.below(HANDLES)].pointer(),
            240..=247 => core::ptr::null_mut(),
            _ => self.memories[0].as_ptr().cast_mut().cast(),
        })
    }

    /// Returns the output for a handle of a gate, or rarely an invalid one.
    fn new_gate(&self, bytes: &mut Bytes<'_>) -> Out<'_, kt_gate> {
        new(match bytes.byte() {
            0..=239 => self.gates[bytes.below(HANDLES)].pointer(),
            240..=247 => core::ptr::null_mut(),
            _ => self.memories[0].as_ptr().cast_mut().cast(),
        })
    }

    /// Returns the memory for a table and its length, or rarely an invalid pointer or length.
    fn memory(&self, bytes: &mut Bytes<'_>) -> (Memory<'_>, usize) {
        let right = self.memories[bytes.below(2)].as_ptr().cast_mut().cast::<c_void>();
        let size = LINES * CACHE_LINE_LEN;
        let (pointer, len) = match bytes.byte() {
            0..=179 => (right, size),
            180..=209 => (right, bytes.below(256) * 24),
            210..=219 => (core::ptr::null_mut(), size),
            220..=229 => (right.wrapping_byte_add(8), size - CACHE_LINE_LEN),
            230..=239 => (right, usize::MAX),
            _ => (right, isize::MAX.cast_unsigned() + 1),
        };
        // SAFETY: The pointer is NULL, misaligned, or to one of the memories. Each length fits that
        // memory or exceeds the address space, in which case the library rejects it. The memories
        // outlive the handles, and are used only for tables.
        (unsafe { Memory::from_raw(pointer) }, len)
    }
}

/// The outputs of a call.
struct Outputs {
    verdict: kt_verdict,
    number: u64,
}

impl Outputs {
    fn new() -> Self {
        let mut verdict = untouched();
        verdict.now_ms = UNTOUCHED;
        Self { verdict, number: UNTOUCHED }
    }

    /// Returns the output for a verdict, or rarely an invalid one.
    fn verdict(&mut self, bytes: &mut Bytes<'_>) -> Out<'static, kt_verdict> {
        let right = &raw mut self.verdict;
        new(match bytes.byte() {
            0..=239 => right,
            240..=247 => core::ptr::null_mut(),
            _ => right.wrapping_byte_add(1),
        })
    }

    /// Returns the output for a number, or rarely NULL.
    fn number(&mut self, bytes: &mut Bytes<'_>) -> Out<'static, u64> {
        new(if bytes.byte() < 240 { &raw mut self.number } else { core::ptr::null_mut() })
    }

    /// Asserts that a failed call wrote no output, and that a written verdict has header fields.
    fn check(&self, succeeded: bool) {
        if !succeeded {
            assert_eq!(
                (self.verdict.now_ms, self.verdict.outcome.0, self.number),
                (UNTOUCHED, 0xa5, UNTOUCHED)
            );
        } else if self.verdict.now_ms != UNTOUCHED {
            let mut headers = [0; KT_HEADERS_SIZE];
            let mut written = 0;
            let verdict = core::slice::from_ref(&self.verdict);
            let status = keytally_ffi::kt_verdict_headers(
                right(verdict),
                new(headers.as_mut_ptr()),
                KT_HEADERS_SIZE,
                output(&mut written),
            );
            assert_eq!((status, headers[written]), (kt_status::KT_OK, 0));
        }
    }
}

/// Makes a call that writes the result of a compound charge. If it fails, nothing is written. Else
/// the header fields can be written, and a request that is not admitted has charged nothing.
fn compound(call: impl FnOnce(Out<'_, kt_compound>) -> kt_status) -> kt_status {
    let mut memory = Box::new([UNTOUCHED; size_of::<kt_compound>() / 8]);
    let status = call(new(memory.as_mut_ptr().cast()));
    if status != kt_status::KT_OK {
        assert!(memory.iter().all(|&word| word == UNTOUCHED));
        return status;
    }
    // SAFETY: The memory has the size and the alignment of the struct, whose members are numbers.
    let compound = unsafe { &*memory.as_ptr().cast::<kt_compound>() };
    let count = usize::from(compound.tally_count);
    let (tallies, others) = compound.tallies.split_at(count);
    let is_admitted = tallies.iter().all(|tally| tally.verdict.outcome.0 == 0);
    assert_eq!(is_admitted, compound.outcome.0 == 0);
    assert!(is_admitted || tallies.iter().all(|tally| tally.verdict.charged == 0));
    assert!(others.iter().all(|tally| tally.verdict.now_ms == 0 && tally.private_ == [0; 2]));
    for tally in tallies.chunks(1) {
        let (name, mut len) = (&mut [0; KT_QUOTA_NAME_SIZE], 0);
        let count = usize::from(tally[0].verdict.quota_count);
        for index in 0..=count {
            let (buffer, size) = (new(name.as_mut_ptr()), KT_QUOTA_NAME_SIZE);
            let status = keytally_ffi::kt_tally_quota_name(
                right(tally),
                index,
                buffer,
                size,
                output(&mut len),
            );
            assert_eq!(status == kt_status::KT_OK, index < count);
        }
    }
    let mut headers = vec![0; KT_COMPOUND_HEADERS_SIZE];
    let (mut written, mut charge) = (0, kt_charge { words: [0; 16] });
    let compound = right(core::slice::from_ref(compound));
    let status = keytally_ffi::kt_compound_headers(
        compound,
        new(headers.as_mut_ptr()),
        headers.len(),
        output(&mut written),
    );
    assert_eq!((status, headers[written]), (kt_status::KT_OK, 0));
    keytally_ffi::kt_compound_charge(compound, 0, output(&mut charge))
}

/// Returns a verdict with an outcome that no call writes.
fn untouched() -> kt_verdict {
    let mut verdict: Box<[kt_verdict; 1]> = Box::new([written_verdict()]);
    verdict[0].outcome = Number(0xa5);
    verdict[0]
}

/// Returns a verdict that the library wrote: that of a key that was sent twice.
fn written_verdict() -> kt_verdict {
    let mut verdict = core::mem::MaybeUninit::<kt_verdict>::zeroed();
    let status = keytally_ffi::kt_verdict_duplicate_header(0, new(verdict.as_mut_ptr()));
    assert_eq!(status, kt_status::KT_OK);
    // SAFETY: The memory was zeroed, and every field is a number.
    unsafe { verdict.assume_init() }
}

/// Returns the information about a key with 0 in every field.
fn zeroed_info() -> kt_key_info {
    // SAFETY: Every field is a number.
    unsafe { core::mem::zeroed() }
}

/// Calls a function that writes the response to a verdict. The fields of the verdict are arbitrary,
/// since a C program can write them.
fn respond(bytes: &mut Bytes<'_>) -> kt_status {
    let mut verdict = written_verdict();
    verdict.outcome = Number(bytes.byte() % 8);
    verdict.reason = Number(bytes.byte() % 12);
    verdict.quota_count = bytes.byte() % 6;
    verdict.retry_after_s = bytes.cost();
    verdict.charged = verdict.retry_after_s;
    (verdict.retry_at_ms, verdict.now_ms, verdict.at_ms) =
        (bytes.word(), bytes.word(), bytes.word());
    for quota in verdict.private_.as_chunks_mut::<4>().0 {
        let window = bytes.pick(&[60, 3600, 1, 2_678_400, 0, u32::MAX]);
        let flags = u32::from(bytes.byte()) << 24;
        *quota = [bytes.cost(), bytes.cost(), window | flags, u32::from_le_bytes(bytes.array())];
    }
    let mut buffer = [0x21; KT_HEADERS_SIZE];
    let len = bytes.pick(&[KT_HEADERS_SIZE, KT_HEADERS_SIZE, 100, 0]);
    let mut written = 0;
    check_charge(&verdict);
    let verdict = core::slice::from_ref(&verdict);
    let block = new(buffer.as_mut_ptr());
    let status = match bytes.byte() % 5 {
        0 | 2 => keytally_ffi::kt_verdict_headers(right(verdict), block, len, output(&mut written)),
        1 => keytally_ffi::kt_verdict_problem(right(verdict), block, len, output(&mut written)),
        3 => {
            let mut quota = core::mem::MaybeUninit::<kt_quota>::uninit();
            keytally_ffi::kt_verdict_quota(
                right(verdict),
                bytes.byte().into(),
                new(quota.as_mut_ptr()),
            )
        }
        _ => {
            let none = kt_field { name: In::NULL, name_len: 0, value: In::NULL, value_len: 0 };
            let mut fields = [none; KT_MAX_FIELDS];
            let status = keytally_ffi::kt_verdict_fields(
                right(verdict),
                block,
                len,
                new(fields.as_mut_ptr()),
                bytes.pick(&[KT_MAX_FIELDS, KT_MAX_FIELDS, 5, 0]),
                output(&mut written),
            );
            assert!(
                fields[..written].iter().all(|field| field.name_len > 0 && field.value_len > 0)
            );
            assert!(fields[written..].iter().all(|field| field.name_len == 0));
            status
        }
    };
    assert!(
        status == kt_status::KT_OK || buffer.iter().all(|&byte| byte == 0x21),
        "a call that failed with {status:?} wrote to the buffer"
    );
    status
}

/// Asserts that the charge of a verdict has its units and its time.
fn check_charge(verdict: &kt_verdict) {
    let mut charge = kt_charge { words: [UNTOUCHED; 16] };
    let verdict_in = right(core::slice::from_ref(verdict));
    let status = keytally_ffi::kt_verdict_charge(verdict_in, output(&mut charge));
    if status != kt_status::KT_OK {
        let statuses = [kt_status::KT_NOT_A_VERDICT, kt_status::KT_NOT_A_CHARGE];
        assert!(statuses.contains(&status) && charge.words == [UNTOUCHED; 16], "{status:?}");
        return;
    }
    let (mut cost, mut at_ms) = (0, 0);
    let charge = core::slice::from_ref(&charge);
    assert_eq!(keytally_ffi::kt_charge_cost(right(charge), output(&mut cost)), kt_status::KT_OK);
    assert_eq!(keytally_ffi::kt_charge_at_ms(right(charge), output(&mut at_ms)), kt_status::KT_OK);
    assert_eq!((cost, at_ms), (verdict.charged, verdict.at_ms));
}

/// Returns a charge, which is damaged for some costs.
fn charge(bytes: &mut Bytes<'_>, at_ms: u64) -> kt_charge {
    let cost = bytes.cost();
    let mut charge = kt_charge { words: [0; 16] };
    let status = keytally_ffi::kt_charge_new(cost, at_ms, output(&mut charge));
    assert_eq!(status, kt_status::KT_OK);
    if (600..750).contains(&cost) {
        charge.words[cost as usize % 16] ^= 1 << (cost % 61);
    }
    charge
}

/// A callback for listed keys.
extern "C" fn visit(_: *mut c_void, info: In<'_, kt_key_info>) -> c_int {
    let _ = info;
    0
}

/// A callback for accounts.
extern "C" fn visit_account(_: *mut c_void, info: In<'_, kt_account_info>) -> c_int {
    let mut quota = core::mem::MaybeUninit::<kt_quota>::uninit();
    let status = keytally_ffi::kt_account_info_quota(info, 0, new(quota.as_mut_ptr()));
    assert!(matches!(status, kt_status::KT_OK | kt_status::KT_NO_SUCH_QUOTA));
    0
}

/// Returns the information about an account with 0 in every field.
fn account_info() -> kt_account_info {
    // SAFETY: Every field is a number.
    unsafe { core::mem::zeroed() }
}

/// Asserts that each quota of an account can be read.
fn check_account(info: &kt_account_info) {
    let mut quota = core::mem::MaybeUninit::<kt_quota>::uninit();
    for index in 0..usize::from(info.quota_count) {
        let info = right(core::slice::from_ref(info));
        let status = keytally_ffi::kt_account_info_quota(info, index, new(quota.as_mut_ptr()));
        assert_eq!(status, kt_status::KT_OK);
    }
}

/// Returns the groups of a request.
fn groups(bytes: &mut Bytes<'_>) -> [kt_group<'static>; 9] {
    core::array::from_fn(|_| {
        let name = bytes.pick(&[&b"write"[..], b"tokens", b"write", b"no such", b"\xff"]);
        kt_group {
            name: c_text(name),
            name_len: name.len(),
            cost: bytes.cost(),
            has_own_cost: u32::from(bytes.byte() % 2),
        }
    })
}

/// A callback for flaws.
extern "C" fn flaw(_: *mut c_void, flaw: In<'_, kt_flaw>) {
    let _ = flaw;
}

/// Returns a pointer to the values, or rarely an invalid one: NULL or, if `T` has an alignment,
/// misaligned.
fn maybe_wrong<'v, T>(bytes: &mut Bytes<'_>, values: &'v [T]) -> In<'v, T> {
    let right = values.as_ptr();
    let pointer = match bytes.byte() {
        0..=239 => right,
        240..=247 => core::ptr::null(),
        _ if align_of::<T>() > 1 => right.wrapping_byte_add(1),
        _ => core::ptr::null(),
    };
    // SAFETY: The pointer is NULL, misaligned, or to these values, which live as long as the
    // result.
    unsafe { In::from_raw(pointer) }
}

/// Returns a pointer to the values.
fn right<T>(values: &[T]) -> In<'_, T> {
    // SAFETY: These values live as long as the result.
    unsafe { In::from_raw(values.as_ptr()) }
}

/// Returns a pointer to a text for C.
fn c_text(text: &[u8]) -> In<'_, c_char> {
    // SAFETY: The text lives as long as the result, and a character is a byte.
    unsafe { In::from_raw(text.as_ptr().cast()) }
}

/// Returns a name for C.
fn c_name(text: &[u8]) -> kt_name<'_> {
    kt_name { text: c_text(text), text_len: text.len() }
}

/// Returns a pointer to bytes and a length, either of which is rarely invalid.
fn input<'v>(bytes: &mut Bytes<'_>, values: &'v [u8]) -> (In<'v, u8>, usize) {
    (maybe_wrong(bytes, values), length(bytes, values.len()))
}

/// Returns a pointer to a text for C and a length, either of which is rarely invalid.
fn text<'v>(bytes: &mut Bytes<'_>, values: &'v [u8]) -> (In<'v, c_char>, usize) {
    let text = if bytes.byte() < 240 { c_text(values) } else { In::NULL };
    (text, length(bytes, values.len()))
}

/// Returns the length `len`, or less, or rarely one that exceeds the address space.
fn length(bytes: &mut Bytes<'_>, len: usize) -> usize {
    match bytes.byte() {
        0..=219 => len,
        220..=239 => len / 2,
        240..=247 => usize::MAX,
        _ => isize::MAX.cast_unsigned() + 1,
    }
}

/// Returns the pointer as a handle.
fn handle<'h, T>(pointer: *mut T) -> Handle<'h, T> {
    // SAFETY: The pointer is NULL, misaligned, or to a `HandleMemory`, which is larger than any
    // handle and outlives the call. No other thread closes the handle.
    unsafe { Handle::from_raw(pointer) }
}

/// Returns the pointer as an output.
fn new<'h, T>(pointer: *mut T) -> Out<'h, T> {
    // SAFETY: The pointer is NULL, misaligned, to the memory of a table (which the library
    // rejects), or to memory that is not used otherwise during the call.
    unsafe { Out::from_raw(pointer) }
}

/// Returns a variable as an output.
fn output<T>(value: &mut T) -> Out<'_, T> {
    new(value)
}
