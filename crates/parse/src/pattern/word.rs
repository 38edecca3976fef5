//! The longest text without which a pattern cannot match.
//!
//! Looking for one word is many times cheaper than a search: a stream that fifty patterns wait for asks each of them only about
//! lines that hold its word.

use super::tree::Node;

/// Empty if there is none.
pub fn required(tree: &Node) -> String {
    let mut longest = String::new();
    collect(tree, &mut longest);
    longest
}

fn collect(node: &Node, longest: &mut String) {
    match node {
        Node::Char(c) => offer(&c.to_string(), longest),
        Node::Concat(nodes) => {
            let mut word = String::new();
            for node in nodes {
                match node {
                    Node::Char(c) => word.push(*c),
                    node => {
                        offer(&word, longest);
                        word.clear();
                        collect(node, longest);
                    }
                }
            }
            offer(&word, longest);
        }
        Node::Group(_, node) | Node::Atomic(node) | Node::Repeat { node, min: 1.., .. } => collect(node, longest),
        _ => {}
    }
}

fn offer(word: &str, longest: &mut String) {
    if word.len() > longest.len() {
        longest.clear();
        longest.push_str(word);
    }
}
