//! Documents as a search application has them: text, tags, metadata, a price, and an embedding near its topic's.
//!
//! Pure: the same seed gives the same documents on every machine.

const WORDS: [&str; 48] = [
    "index",
    "vector",
    "planner",
    "buffer",
    "commit",
    "replica",
    "snapshot",
    "vacuum",
    "checkpoint",
    "latency",
    "harbour",
    "granite",
    "orchard",
    "lantern",
    "meadow",
    "Zürich",
    "café",
    "naïve",
    "東京",
    "данные",
    "quorum",
    "cursor",
    "schema",
    "tuple",
    "trigger",
    "relation",
    "segment",
    "partition",
    "collection",
    "cluster",
    "shard",
    "river",
    "copper",
    "violin",
    "glacier",
    "saffron",
    "telescope",
    "compass",
    "anchor",
    "ledger",
    "signal",
    "\"quoted\"",
    "back\\slash",
    "tab\there",
    "line\nbreak",
    "50 %",
    "{braces}",
    "🚀",
];

const TAGS: [&str; 10] = [
    "database",
    "search",
    "travel",
    "music",
    "science",
    "cooking",
    "history",
    "two words",
    "with,comma",
    "with\"quote",
];

const TOPICS: u64 = 16;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and every seed is a good one.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` − 1; 0 when `bound` is 0. The bias is below 2⁻³² for the small bounds used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.number() % bound }
    }

    /// From −1 to 1, 24 bits of it.
    pub fn unit(&mut self) -> f32 {
        ((self.number() >> 40) as f32 / (1 << 23) as f32) - 1.0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// One row of `documents`; every value as text that PostgreSQL's input functions take.
#[derive(Clone, Debug)]
pub struct Document {
    pub id: i64,
    pub title: String,
    pub body: String,
    pub tags: Vec<String>,
    pub meta: String,
    /// `None`: the price is NULL.
    pub price: Option<String>,
    pub embedding: String,
}

impl Document {
    pub fn generate(id: i64, dimensions: u32, random: &mut Random) -> Document {
        let title = words(random, 3);
        let length = 5 + random.below(60);
        let body = words(random, length);
        let tags = (0..random.below(4)).map(|_| random.pick(&TAGS).to_owned()).collect();
        let meta = format!(
            r#"{{"source": "{}", "revision": {}, "score": {}, "flags": [true, null, "é"]}}"#,
            random.pick(&["crawl", "upload", "mail"]),
            random.below(1000),
            random.below(10_000) as f64 / 16.0,
        );
        let price = (random.below(10) > 0).then(|| format!("{}.{:02}", random.below(1000), random.below(100)));
        Document { id, title, body, tags, meta, price, embedding: embedding(dimensions, random) }
    }

    /// One line of `COPY documents (id, title, body, tags, meta, price, created, embedding) FROM STDIN`.
    pub fn copy_line(&self, created: &str, line: &mut String) {
        let mut tags = String::from("{");
        for (i, tag) in self.tags.iter().enumerate() {
            tags.push_str(if i > 0 { ",\"" } else { "\"" });
            tags.push_str(&tag.replace('\\', "\\\\").replace('"', "\\\""));
            tags.push('"');
        }
        tags.push('}');
        line.push_str(&self.id.to_string());
        line.push('\t');
        for value in [Some(&self.title), Some(&self.body), Some(&tags), Some(&self.meta), self.price.as_ref()] {
            match value {
                Some(value) => escape(value, line),
                None => line.push_str("\\N"),
            }
            line.push('\t');
        }
        line.push_str(created);
        line.push('\t');
        line.push_str(&self.embedding);
        line.push('\n');
    }
}

pub fn words(random: &mut Random, count: u64) -> String {
    let mut text = String::new();
    for i in 0..count {
        if i > 0 {
            text.push(' ');
        }
        text.push_str(random.pick(&WORDS));
    }
    text
}

/// A unit vector near the centre of a random topic, in pgvector's text form, each element to its last bit.
pub fn embedding(dimensions: u32, random: &mut Random) -> String {
    let mut topic = Random::new(random.below(TOPICS));
    let elements: Vec<f32> = (0..dimensions).map(|_| topic.unit() + 0.6 * random.unit()).collect();
    let length = elements.iter().map(|element| element * element).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let mut text = String::with_capacity(dimensions as usize * 13);
    let mut digits = ryu::Buffer::new();
    text.push('[');
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        text.push_str(digits.format(element / length));
    }
    text.push(']');
    text
}

/// PostgreSQL manual, COPY, "Text Format".
fn escape(value: &str, line: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            other => line.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_documents() {
        let line = |seed| {
            let mut line = String::new();
            Document::generate(7, 8, &mut Random::new(seed)).copy_line("2026-01-01", &mut line);
            line
        };
        assert_eq!(line(1), line(1));
        assert_ne!(line(1), line(2));
    }

    #[test]
    fn a_line_has_eight_fields_and_no_raw_controls() {
        let mut random = Random::new(3);
        for id in 0..500 {
            let mut line = String::new();
            Document::generate(id, 4, &mut random).copy_line("2026-01-01", &mut line);
            assert_eq!(line.matches('\t').count(), 7, "{line}");
            assert_eq!(line.matches('\n').count(), 1, "{line}");
        }
    }

    #[test]
    fn embeddings_have_length_one_and_their_dimensions() {
        let mut random = Random::new(4);
        let text = embedding(64, &mut random);
        let elements: Vec<f32> =
            text.trim_matches(['[', ']']).split(',').map(|element| element.parse().expect("a number")).collect();
        assert_eq!(elements.len(), 64);
        let length: f32 = elements.iter().map(|element| element * element).sum();
        assert!((length - 1.0).abs() < 1e-4, "{length}");
    }

    #[test]
    fn random_numbers_stay_in_bounds() {
        let mut random = Random::new(5);
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((-1.0..=1.0).contains(&random.unit()));
        }
        assert_eq!(random.below(0), 0);
    }
}
