package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keywright/keywright/rotation"
)

// columns are the states in the order in which the picture has them. Each has
// the same width in every row; time runs evenly inside of one.
var columns = []rotation.State{
	rotation.StateIdle, rotation.StatePlanned, rotation.StateIntent, rotation.StateResolving, rotation.StateIssued,
	rotation.StateVerified, rotation.StateDistributing, rotation.StateConverging, rotation.StateRetiring, rotation.StateDone,
}

// Geometry of the timeline.
const (
	plotLeft  = 94
	plotWidth = 1100
	column    = 104
	doneWidth = 50
	plotTop   = 74
	plotRow   = 124
)

const (
	oldColour  = "#b45309"
	newColour  = "#15803d"
	callColour = "#1d4ed8"
	sinkColour = "#334155"
)

// span is a visit of a state.
type span struct {
	state    rotation.State
	from, to time.Duration
}

func (r *rotated) spans() (out []span) {
	now := span{state: rotation.StateIdle}
	for _, c := range r.changes {
		if c.to == now.state {
			continue
		}
		now.to = c.at
		out = append(out, now)
		now = span{state: c.to, from: c.at}
	}
	now.to = r.total
	return append(out, now)
}

func columnOf(s rotation.State) (x, width int) {
	i := slices.Index(columns, s)
	if s == rotation.StateDone {
		return plotLeft + i*column, doneWidth
	}
	return plotLeft + i*column, column
}

// x is where a time is drawn.
func (r *rotated) x(at time.Duration) float64 {
	spans := r.spans()
	for i, s := range spans {
		if at <= s.to || i == len(spans)-1 {
			left, width := columnOf(s.state)
			share := 1.0
			if s.to > s.from {
				share = min(1, max(0, float64(at-s.from)/float64(s.to-s.from)))
			}
			return float64(left) + share*float64(width)
		}
	}
	return plotLeft
}

// when returns the times between which a token was accepted; open says that it
// still is.
func (r *rotated) when(token string) (from, to time.Duration, open bool) {
	from, to = -1, -1
	for _, m := range r.moments {
		switch is := slices.Contains(m.accepted, token); {
		case is && from < 0:
			from = m.at
		case !is && from >= 0 && to < 0:
			to = m.at
		}
	}
	return from, to, to < 0
}

// timelinePicture draws rotations, one below the other.
func timelinePicture(done []*rotated) string {
	var b strings.Builder
	height := plotTop + len(done)*plotRow + 40
	b.WriteString(begin(plotWidth+16, height, "Five rotations as they happened", "For each rotation its states with their durations, the provider calls that changed something, the deliveries, and when the old and the new token were accepted."))
	b.WriteString(`<text x="16" y="28" font-size="15" font-weight="600">Five rotations, measured against the fake providers</text>` + "\n")
	b.WriteString(words(16, 47, "", soft, "A column is a state. Its width says nothing: the number does, in milliseconds; inside a column time runs evenly. Made by: go run ./internal/timeline"))
	for _, s := range columns {
		x, width := columnOf(s)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s" opacity="0.25"/>`, x, plotTop-14, width, height-plotTop-26, colours[s])
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" font-size="12" font-weight="600">%s</text>`+"\n", x+width/2, plotTop+2, s)
	}
	for i, r := range done {
		b.WriteString(r.row(plotTop + 12 + i*plotRow))
	}
	b.WriteString(legend(height - 14))
	b.WriteString("</svg>\n")
	return b.String()
}

// row draws a rotation below y.
func (r *rotated) row(y int) string {
	var b strings.Builder
	text := func(x float64, y int, anchor, fill, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="%s" font-size="12" fill="%s">%s</text>`+"\n", x, y, anchor, fill, s)
	}
	fmt.Fprintf(&b, `<rect x="8" y="%d" width="%d" height="%d" rx="6" fill="#ffffff" stroke="#d0d7de"/>`+"\n", y, plotWidth, plotRow-8)
	fmt.Fprintf(&b, `<text x="20" y="%d" font-size="13"><tspan font-weight="600">%s</tspan><tspan fill="%s">: %s</tspan></text>`+"\n", y+19, r.title, soft, r.note)
	text(plotWidth-4, y+19, "end", soft, fmt.Sprintf("%s in all, %s", milliseconds(r.total), r.counted()))

	band := y + 30
	for _, s := range r.spans() {
		x, width := columnOf(s.state)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="20" fill="%s" stroke="#fff"/>`, x, band, width, colours[s.state])
		label := milliseconds(s.to - s.from)
		if s.state == rotation.StateDone {
			label = "✓"
		}
		text(float64(x)+float64(width)/2, band+14, "middle", ink, label)
	}
	if !slices.ContainsFunc(r.changes, func(c change) bool { return c.to == rotation.StateResolving }) {
		x, width := columnOf(rotation.StateResolving)
		fmt.Fprintf(&b, `<path d="M%d %d h%d" stroke="%s" stroke-dasharray="2 4"/>`+"\n", x+4, band+10, width-8, soft)
	}

	marks := band + 34
	text(20, marks+4, "start", soft, "calls, sinks")
	for _, w := range r.writes {
		from, to := r.x(w.from), r.x(w.to)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="10" rx="2" fill="%s"/>`+"\n", from, marks-5, max(6, to-from-2), sinkColour)
	}
	// Calls that are close together share a label.
	for i := 0; i < len(r.calls); {
		x, colour, names := r.x(r.calls[i].to), callColour, []string{}
		right := x - 12
		for first := i; i < len(r.calls) && (i == first || r.x(r.calls[i].to)-x < 80); i++ {
			if r.calls[i].lost {
				colour = red
			}
			names = append(names, r.calls[i].name)
			right = max(r.x(r.calls[i].to), right+12)
			fmt.Fprintf(&b, `<path d="M%.1f %d l5 11 h-10 z" fill="%s"/>`+"\n", right, marks-6, colour)
		}
		label := listed(names)
		right += 8
		if right+7*float64(len([]rune(label))) > plotWidth+4 {
			text(x-9, marks+4, "end", colour, label)
		} else {
			text(right, marks+4, "start", colour, label)
		}
	}

	first, last := float64(plotLeft), float64(plotLeft+9*column+doneWidth)
	for i, line := range []struct{ token, name, colour string }{{r.old, "old token", oldColour}, {r.new, "new token", newColour}} {
		at := band + 52 + i*16
		text(20, at+4, "start", line.colour, line.name)
		from, to, open := r.when(line.token)
		if from < 0 {
			continue
		}
		x1, x2 := r.x(from), last
		if from <= r.moments[0].at {
			x1 = first
		}
		if !open {
			x2 = r.x(to)
		}
		fmt.Fprintf(&b, `<path d="M%.1f %d H%.1f" stroke="%s" stroke-width="5" stroke-linecap="butt"/>`+"\n", x1, at, x2, line.colour)
		if !open {
			fmt.Fprintf(&b, `<path d="M%.1f %d v10" stroke="%s" stroke-width="2.5"/>`+"\n", x2, at-5, line.colour)
		}
		switch {
		case open && i == 0:
			text(last+4, at+4, "start", line.colour, "6 h")
		case i == 0 && r.faint:
			back, width := columnOf(rotation.StateConverging)
			fmt.Fprintf(&b, `<path d="M%.1f %d H%d" stroke="%s" stroke-width="5" stroke-dasharray="3 3"/>`+"\n", x2+2, at, back+width, red)
			text(float64(back+width+6), at+4, "start", red, "outage")
		}
	}
	return b.String()
}

// listed joins names, and counts those that repeat.
func listed(names []string) string {
	var out []string
	for i := 0; i < len(names); {
		n := 1
		for i+n < len(names) && names[i+n] == names[i] {
			n++
		}
		name := names[i]
		if n > 1 {
			name = fmt.Sprintf("%d × %s", n, name)
		}
		out = append(out, name)
		i += n
	}
	return strings.Join(out, ", ")
}

func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// legend explains the marks.
func legend(y int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<path d="M24 %d l6 11 h-12 z" fill="%s"/>`, y-10, callColour)
	b.WriteString(words(36, y, "", ink, "provider call that changes something"))
	fmt.Fprintf(&b, `<path d="M284 %d l6 11 h-12 z" fill="%s"/>`, y-10, red)
	b.WriteString(words(296, y, "", ink, "the same, and its answer is lost"))
	fmt.Fprintf(&b, `<rect x="510" y="%d" width="14" height="10" rx="2" fill="%s"/>`, y-9, sinkColour)
	b.WriteString(words(532, y, "", ink, "a sink is written and read back"))
	fmt.Fprintf(&b, `<path d="M744 %d h22" stroke="%s" stroke-width="5"/><path d="M770 %[1]d h22" stroke="%[3]s" stroke-width="5"/>`, y-4, oldColour, newColour)
	b.WriteString(words(800, y, "", ink, "the provider accepts the old, the new token"))
	return b.String()
}
