//! Where to put the labels of points so that none lies on another, on a point, or on a line.
//!
//! Greedy with repair: crowded points choose first, then every label may move to a better place that has become
//! free. A label for which there is no place is left off; the caller says so.

/// A rectangle by its edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rect {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

impl Rect {
    pub fn overlaps(&self, o: &Rect) -> bool {
        self.left < o.right && o.left < self.right && self.top < o.bottom && o.top < self.bottom
    }

    fn contains(&self, o: &Rect) -> bool {
        self.left <= o.left && self.top <= o.top && self.right >= o.right && self.bottom >= o.bottom
    }

    /// Whether the segment from `a` to `b` passes through (Liang and Barsky's clipping).
    pub fn crossed_by(&self, a: (f64, f64), b: (f64, f64)) -> bool {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let (mut from, mut to) = (0.0f64, 1.0f64);
        for (p, q) in
            [(-dx, a.0 - self.left), (dx, self.right - a.0), (-dy, a.1 - self.top), (dy, self.bottom - a.1)]
        {
            if p == 0.0 {
                if q <= 0.0 {
                    return false;
                }
            } else if p < 0.0 {
                from = from.max(q / p);
            } else {
                to = to.min(q / p);
            }
        }
        from < to
    }
}

/// A point to be labelled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub x: f64,
    pub y: f64,
    /// Size of the label's text.
    pub width: f64,
    pub height: f64,
    /// Whether its label matters more than others.
    pub first: bool,
}

/// Where a label went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub rect: Rect,
    /// A line from the point to here, where the label is not next to its point.
    pub leader: Option<(f64, f64)>,
    cost: f64,
}

/// Half the side of the square that a point's mark takes.
const MARK: f64 = 6.5;

/// A place for each point's label inside `bounds`, away from the polyline `avoid` where that can be.
pub(crate) fn place(points: &[Point], bounds: Rect, avoid: &[(f64, f64)]) -> Vec<Option<Place>> {
    let marks: Vec<Rect> = points
        .iter()
        .map(|p| Rect { left: p.x - MARK, top: p.y - MARK, right: p.x + MARK, bottom: p.y + MARK })
        .collect();
    let near = |a: &Point, b: &Point| (a.x - b.x).abs() < 90.0 && (a.y - b.y).abs() < 40.0;
    let crowd: Vec<usize> = points.iter().map(|a| points.iter().filter(|b| near(a, b)).count()).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse((points[i].first, crowd[i])), i));
    let options = (0..points.len())
        .map(|i| {
            let mut list = candidates(&points[i], avoid);
            list.retain(|c| bounds.contains(&c.rect) && clear(i, c, points, &marks));
            list.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            list
        })
        .collect();
    let mut board = Board { points, options, places: vec![None; points.len()] };
    for _ in 0..4 {
        let mut moved = false;
        for &i in &order {
            moved |= board.improve(i) || (board.places[i].is_none() && board.make_room(i));
        }
        if !moved {
            break;
        }
    }
    board.places
}

/// Whether `c` keeps off all marks. A leader may leave through the marks that its own lies on.
fn clear(i: usize, c: &Place, points: &[Point], marks: &[Rect]) -> bool {
    let start = (points[i].x, points[i].y);
    marks.iter().enumerate().all(|(j, m)| {
        let mine = j == i || m.overlaps(&marks[i]);
        !c.rect.overlaps(m) && (mine || c.leader.is_none_or(|end| !m.crossed_by(start, end)))
    })
}

/// The labels while they are being placed.
struct Board<'a> {
    points: &'a [Point],
    /// Where each label could go, best first.
    options: Vec<Vec<Place>>,
    places: Vec<Option<Place>>,
}

impl Board<'_> {
    /// Whether label `i` at `c` and label `j` where it is get into each other's way.
    fn clash(&self, i: usize, c: &Place, j: usize) -> bool {
        let Some(p) = self.places[j].as_ref().filter(|_| i != j) else { return false };
        let (start, other) = ((self.points[i].x, self.points[i].y), (self.points[j].x, self.points[j].y));
        c.rect.overlaps(&p.rect)
            || c.leader.is_some_and(|end| p.rect.crossed_by(start, end))
            || p.leader.is_some_and(|end| {
                c.rect.crossed_by(other, end) || c.leader.is_some_and(|mine| meet(start, mine, other, end))
            })
    }

    /// The best free place for label `i`.
    fn best(&self, i: usize) -> Option<Place> {
        self.options[i].iter().find(|c| (0..self.places.len()).all(|j| !self.clash(i, c, j))).copied()
    }

    /// Moves label `i` to the best free place; says whether it moved.
    fn improve(&mut self, i: usize) -> bool {
        let best = self.best(i);
        let better = match (best, self.places[i]) {
            (Some(new), Some(old)) => new.cost < old.cost,
            (new, _) => new.is_some(),
        };
        if better {
            self.places[i] = best;
        }
        better
    }

    /// Places label `i` where one other stands in the way that can go elsewhere; says whether it did.
    fn make_room(&mut self, i: usize) -> bool {
        for k in 0..self.options[i].len() {
            let c = self.options[i][k];
            let mut blockers = (0..self.places.len()).filter(|j| self.clash(i, &c, *j));
            let (Some(j), None) = (blockers.next(), blockers.next()) else { continue };
            let old = self.places[j].take();
            self.places[i] = Some(c);
            self.places[j] = self.best(j);
            if self.places[j].is_some() {
                return true;
            }
            (self.places[i], self.places[j]) = (None, old);
        }
        false
    }
}

/// Whether two segments cross; to start at the same point is not to cross.
fn meet(a: (f64, f64), b: (f64, f64), c: (f64, f64), d: (f64, f64)) -> bool {
    let side =
        |p: (f64, f64), q: (f64, f64), r: (f64, f64)| (q.0 - p.0) * (r.1 - p.1) - (q.1 - p.1) * (r.0 - p.0);
    side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
}

/// Places around a point: next to it, then on rings further out with a leader.
fn candidates(p: &Point, avoid: &[(f64, f64)]) -> Vec<Place> {
    let rect = |cx: f64, cy: f64| Rect {
        left: cx - p.width / 2.0,
        right: cx + p.width / 2.0,
        top: cy - p.height / 2.0,
        bottom: cy + p.height / 2.0,
    };
    let (side, above) = (p.width / 2.0 + MARK + 2.0, p.height / 2.0 + MARK + 0.5);
    let mut out = Vec::new();
    for (dx, dy, cost) in [
        (side, 0.0, 0.0),
        (-side, 0.0, 1.0),
        (side * 0.9, above * 0.8, 2.0),
        (-side * 0.9, -above * 0.8, 2.0),
        (side * 0.9, -above * 0.8, 2.5),
        (-side * 0.9, above * 0.8, 2.5),
        (0.0, -above, 3.0),
        (0.0, above, 3.0),
    ] {
        out.push(Place { rect: rect(p.x + dx, p.y + dy), leader: None, cost });
    }
    for (ring, far) in [22.0, 34.0, 48.0, 64.0, 84.0, 108.0, 136.0].into_iter().enumerate() {
        for step in 0..24 {
            let (sin, cos) = (f64::from(step) * std::f64::consts::TAU / 24.0).sin_cos();
            let r = rect(p.x + cos * (far + p.width / 2.0), p.y + sin * (far + p.height / 2.0));
            // The leader ends at the label's nearest edge, at half height: that reads best.
            let end = (p.x.clamp(r.left - 2.0, r.right + 2.0), p.y.clamp(r.top, r.bottom));
            out.push(Place { rect: r, leader: Some(end), cost: 8.0 + 5.0 * ring as f64 });
        }
    }
    for place in &mut out {
        let crossings = avoid.windows(2).filter(|w| place.rect.crossed_by(w[0], w[1])).count();
        place.cost += 6.0 * crossings as f64;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Rect = Rect { left: 0.0, top: 0.0, right: 900.0, bottom: 400.0 };

    fn point(x: f64, y: f64) -> Point {
        Point { x, y, width: 50.0, height: 14.0, first: false }
    }

    #[test]
    fn a_lone_label_stands_to_the_right_of_its_point() {
        let p = place(&[point(100.0, 100.0)], BOUNDS, &[])[0].expect("there is room");
        assert!(p.rect.left > 100.0 && p.leader.is_none());
    }

    #[test]
    fn forty_crowded_labels_touch_neither_each_other_nor_a_point() {
        // As releases look: a rising band, denser than any real one.
        let points: Vec<Point> = (0..40)
            .map(f64::from)
            .map(|i| point(100.0 + i * 15.0, 340.0 - i * 6.0 + (i % 3.0) * 11.0))
            .collect();
        let places = place(&points, BOUNDS, &[]);
        let found: Vec<&Place> = places.iter().flatten().collect();
        assert!(found.len() >= 36, "only {} of 40 labels found a place", found.len());
        for (i, a) in found.iter().enumerate() {
            assert!(BOUNDS.contains(&a.rect));
            assert!(found[i + 1..].iter().all(|b| !a.rect.overlaps(&b.rect)), "label {i} lies on another");
            for p in &points {
                let mark = Rect { left: p.x - 4.0, top: p.y - 4.0, right: p.x + 4.0, bottom: p.y + 4.0 };
                assert!(!a.rect.overlaps(&mark), "label {i} lies on a point");
            }
        }
    }

    #[test]
    fn a_label_that_fits_nowhere_is_left_off() {
        let wide = Point { width: 2000.0, ..point(10.0, 10.0) };
        assert_eq!(place(&[wide], BOUNDS, &[]), [None]);
    }

    #[test]
    fn segments_and_rectangles() {
        let r = Rect { left: 10.0, top: 10.0, right: 20.0, bottom: 20.0 };
        assert!(r.crossed_by((0.0, 0.0), (30.0, 30.0)));
        assert!(r.crossed_by((15.0, 0.0), (15.0, 15.0)));
        assert!(!r.crossed_by((0.0, 0.0), (5.0, 30.0)));
        assert!(!r.crossed_by((0.0, 25.0), (30.0, 25.0)));
    }
}
