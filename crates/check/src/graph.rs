//! Circles in a graph. Without recursion: a history may hold a chain of a million transactions.

/// Every set of two or more nodes that reach each other, in no promised order. Nodes are numbers below `nodes`;
/// edges of others are left out.
pub fn circles(nodes: usize, edges: &[(u32, u32)]) -> Vec<Vec<u32>> {
    let known = |(from, to): &&(u32, u32)| (*from as usize) < nodes && (*to as usize) < nodes;
    // The edges of a node lie between its start and the next one's.
    let mut starts = vec![0_usize; nodes + 1];
    for (from, _) in edges.iter().filter(known) {
        starts[*from as usize + 1] += 1;
    }
    for node in 0..nodes {
        starts[node + 1] += starts[node];
    }
    let mut targets = vec![0_u32; starts[nodes]];
    let mut free = starts.clone();
    for (from, to) in edges.iter().filter(known) {
        targets[free[*from as usize]] = *to;
        free[*from as usize] += 1;
    }
    let mut search = Search {
        edge: starts.clone(),
        starts,
        targets,
        seen: vec![0; nodes],
        low: vec![0; nodes],
        open: vec![false; nodes],
        stack: Vec::new(),
        next: 1,
        found: Vec::new(),
    };
    for node in (0_u32..).take(nodes) {
        if search.seen[node as usize] == 0 {
            search.from(node);
        }
    }
    search.found
}

/// Tarjan's search, with the path kept by hand.
struct Search {
    starts: Vec<usize>,
    targets: Vec<u32>,
    /// The edge of each node that is looked at next.
    edge: Vec<usize>,
    /// In which turn a node was come to; 0: not yet.
    seen: Vec<u32>,
    /// The earliest turn of a node that is reached from here.
    low: Vec<u32>,
    /// Whether a node is on the stack.
    open: Vec<bool>,
    stack: Vec<u32>,
    next: u32,
    found: Vec<Vec<u32>>,
}

impl Search {
    fn enter(&mut self, node: u32) {
        let at = node as usize;
        self.seen[at] = self.next;
        self.low[at] = self.next;
        self.next += 1;
        self.open[at] = true;
        self.stack.push(node);
    }

    fn from(&mut self, root: u32) {
        let mut path = vec![root];
        self.enter(root);
        while let Some(&node) = path.last() {
            let at = node as usize;
            if self.edge[at] < self.starts[at + 1] {
                let to = self.targets[self.edge[at]];
                self.edge[at] += 1;
                if self.seen[to as usize] == 0 {
                    self.enter(to);
                    path.push(to);
                } else if self.open[to as usize] {
                    self.low[at] = self.low[at].min(self.seen[to as usize]);
                }
                continue;
            }
            path.pop();
            if let Some(&before) = path.last() {
                let before = before as usize;
                self.low[before] = self.low[before].min(self.low[at]);
            }
            if self.low[at] == self.seen[at] {
                self.close(node);
            }
        }
    }

    /// Everything on the stack down to this node reaches each other.
    fn close(&mut self, node: u32) {
        let mut circle = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.open[member as usize] = false;
            circle.push(member);
            if member == node {
                break;
            }
        }
        if circle.len() > 1 {
            circle.reverse();
            self.found.push(circle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(nodes: usize, edges: &[(u32, u32)]) -> Vec<Vec<u32>> {
        let mut found = circles(nodes, edges);
        found.iter_mut().for_each(|circle| circle.sort_unstable());
        found.sort();
        found
    }

    #[test]
    fn circles_are_found_and_nothing_else() {
        assert!(circles(0, &[]).is_empty());
        assert!(circles(4, &[(0, 1), (0, 2), (1, 3), (2, 3), (0, 3)]).is_empty());
        // An edge of a node that there is not.
        assert!(circles(1, &[(0, 1), (1, 0)]).is_empty());
        let edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 3), (4, 5)];
        assert_eq!(sorted(6, &edges), [vec![0, 1, 2], vec![3, 4]]);
        // Two circles with a node in common are one set.
        assert_eq!(
            sorted(3, &[(0, 1), (1, 0), (1, 2), (2, 1)]),
            [vec![0, 1, 2]]
        );
    }

    #[test]
    fn a_chain_of_a_million_is_no_circle_until_it_is_closed() {
        let nodes = 1_000_000;
        let mut edges: Vec<(u32, u32)> = (1..nodes).map(|node| (node - 1, node)).collect();
        assert!(circles(nodes as usize, &edges).is_empty());
        edges.push((nodes - 1, 0));
        let found = circles(nodes as usize, &edges);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].len(), nodes as usize);
    }
}
