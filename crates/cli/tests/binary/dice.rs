//! What is random in a test, from a seed that repeats it.

/// Numbers that follow from a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below this one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }

    /// One of these; none of none.
    pub fn one_of<T>(&mut self, mut these: Vec<T>) -> Option<T> {
        let count = these.len() as u64;
        (count > 0).then(|| these.swap_remove(self.below(count) as usize))
    }
}

/// The number that a person chose by a variable of the environment.
pub fn wanted(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}
