package main

import (
	"fmt"
	"strings"

	"github.com/keywright/keywright/rotation"
)

// The table of states: what the manual's first picture shows, and what every
// rotation that this program performs is held against.

// box is a state and where it is drawn.
type box struct {
	state rotation.State
	x, y  int    // of its middle
	text  string // below its name
	stuck bool   // may become STUCK
}

const (
	boxWidth  = 216
	boxHeight = 46

	left, middle, right = 136, 452, 776 // columns
)

func rowOf(n int) int { return 62 + n*78 }

var states = []box{
	{rotation.StateIdle, middle, rowOf(0), "nothing is under way", false},
	{rotation.StatePlanned, middle, rowOf(1), "all is checked, nothing is sent", false},
	{rotation.StateIntent, middle, rowOf(2), "the token is asked for, once", false},
	{rotation.StateResolving, left, rowOf(3), "reads back what happened", true},
	{rotation.StateIssued, middle, rowOf(3), "the journal has the new token", true},
	{rotation.StateVerified, middle, rowOf(4), "the provider accepts it", true},
	{rotation.StateDistributing, middle, rowOf(5), "sinks get it, one by one", true},
	{rotation.StateConverging, middle, rowOf(6), "readers get it; the old one idles", true},
	{rotation.StateRetiring, middle, rowOf(7), "the old token is ended", true},
	{rotation.StateDone, middle, rowOf(8), "over, with the new token", false},
	{rotation.StateRollingBack, right, rowOf(5) - 39, "sinks get the old token back", true},
	{rotation.StateRolledBack, right, rowOf(6) - 39, "over, with the old token", false},
	{rotation.StateStuck, right, rowOf(8), "a person is needed", false},
}

// edge is a change of state and how it is drawn.
type edge struct {
	from, to rotation.State
	path     string // of the arrow; empty: shared with another, or too plain to draw
	label    string // lines separated by "|"
	x, y     int    // of the label's first line
	anchor   string // "start" by default
	faint    bool   // not a part of an undisturbed rotation
}

var edges = []edge{
	{from: rotation.StateIdle, to: rotation.StatePlanned, path: down(0)},
	{from: rotation.StatePlanned, to: rotation.StateIntent, path: down(1)},
	{from: rotation.StateIntent, to: rotation.StateIssued, path: down(2), label: "answered", x: middle + 10, y: rowOf(2) + 43},
	{from: rotation.StateIssued, to: rotation.StateVerified, path: down(3)},
	{from: rotation.StateVerified, to: rotation.StateDistributing, path: down(4)},
	{from: rotation.StateDistributing, to: rotation.StateConverging, path: down(5)},
	{from: rotation.StateConverging, to: rotation.StateRetiring, path: down(6)},
	{from: rotation.StateRetiring, to: rotation.StateDone, path: down(7)},

	{
		from: rotation.StateIntent, to: rotation.StateResolving, faint: true, label: "answer lost,|or killed here", x: left + 68, y: rowOf(2) + 29,
		path: fmt.Sprintf("M%d %d H%d V%d", middle-boxWidth/2, rowOf(2)+13, left+60, rowOf(3)-boxHeight/2),
	},
	{
		from: rotation.StateResolving, to: rotation.StateIntent, faint: true, label: "it did not happen: ask again", x: left - 18, y: rowOf(2) - 9,
		path: fmt.Sprintf("M%d %d V%d H%d", left-26, rowOf(3)-boxHeight/2, rowOf(2)-3, middle-boxWidth/2),
	},
	{
		from: rotation.StateResolving, to: rotation.StateIssued, faint: true, label: "it happened", x: left + boxWidth/2 + 10, y: rowOf(3) - 7,
		path: fmt.Sprintf("M%d %d H%d", left+boxWidth/2, rowOf(3), middle-boxWidth/2),
	},
	{
		from: rotation.StateResolving, to: rotation.StateIdle, faint: true, label: "it did not happen,|and the attempts are spent", x: left - 92, y: rowOf(0) + 19,
		path: fmt.Sprintf("M%d %d V%d H%d", left-100, rowOf(3)-boxHeight/2, rowOf(0), middle-boxWidth/2),
	},
	{
		from: rotation.StateIntent, to: rotation.StateIdle, faint: true, label: "refused, or never sent", x: middle - boxWidth/2 - 48, y: rowOf(1) + 4, anchor: "end",
		path: fmt.Sprintf("M%d %d H%d V%d H%d", middle-boxWidth/2, rowOf(2)-15, middle-boxWidth/2-40, rowOf(0)+12, middle-boxWidth/2),
	},
	{
		from: rotation.StatePlanned, to: rotation.StateIdle, faint: true, // joins the arrow before
		path: fmt.Sprintf("M%d %d H%d", middle-boxWidth/2, rowOf(1), middle-boxWidth/2-40),
	},
	{from: rotation.StatePlanned, to: rotation.StatePlanned}, // a later run looks again
	{from: rotation.StateIssued, to: rotation.StateIssued},   // the provider shows another token as current
	{
		from: rotation.StateConverging, to: rotation.StateDistributing, faint: true, label: "somebody changed a sink|(and then STUCK)", x: 296, y: rowOf(5) + 37, anchor: "end",
		path: fmt.Sprintf("M%d %d H%d V%d H%d", middle-boxWidth/2, rowOf(6)-8, 306, rowOf(5)+8, middle-boxWidth/2),
	},

	{
		from: rotation.StateIssued, to: rotation.StateRollingBack, faint: true, label: "Rollback, where there|is a way back", x: right - boxWidth/2, y: rowOf(4) - 6,
		path: fmt.Sprintf("M%d %d H%d V%d H%d", middle+boxWidth/2, rowOf(3)+8, 620, rowOf(5)-39, right-boxWidth/2),
	},
	{from: rotation.StateVerified, to: rotation.StateRollingBack, faint: true, path: joins(rowOf(4))},
	{from: rotation.StateDistributing, to: rotation.StateRollingBack, faint: true, path: joins(rowOf(5))},
	{
		from: rotation.StateConverging, to: rotation.StateRollingBack, faint: true,
		path: fmt.Sprintf("M%d %d H%d V%d", middle+boxWidth/2, rowOf(6)-8, 620, rowOf(5)-39),
	},
	{from: rotation.StateRollingBack, to: rotation.StateRollingBack}, // the sinks have the old token again
	{
		from: rotation.StateRollingBack, to: rotation.StateRolledBack, faint: true,
		path: fmt.Sprintf("M%d %d V%d", right, rowOf(5)-39+boxHeight/2, rowOf(6)-39-boxHeight/2),
	},

	{from: rotation.StateDone, to: rotation.StatePlanned}, // the next rotation
	{from: rotation.StateRolledBack, to: rotation.StatePlanned},
}

func down(row int) string {
	return fmt.Sprintf("M%d %d V%d", middle, rowOf(row)+boxHeight/2, rowOf(row+1)-boxHeight/2)
}

func joins(y int) string { return fmt.Sprintf("M%d %d H%d", middle+boxWidth/2, y, 620) }

// drawn reports whether a change of state is in the table.
func drawn(from, to rotation.State) bool {
	for _, e := range edges {
		if e.from == from && e.to == to {
			return true
		}
	}
	for _, b := range states {
		if b.stuck && (b.state == from && to == rotation.StateStuck || from == rotation.StateStuck && b.state == to) {
			return true
		}
	}
	return false
}

// Colours of the states, on a ground that is light whatever is around it.
const (
	ground = "#f7f8fa"
	ink    = "#1f2328"
	soft   = "#57606a"
	red    = "#b42318"
)

var colours = map[rotation.State]string{
	rotation.StateIdle:         "#e3e6ea",
	rotation.StatePlanned:      "#d5dbe3",
	rotation.StateIntent:       "#f6d58a",
	rotation.StateResolving:    "#f2b27a",
	rotation.StateIssued:       "#cfe3b4",
	rotation.StateVerified:     "#b5dcb0",
	rotation.StateDistributing: "#a9d8cf",
	rotation.StateConverging:   "#a9cfe8",
	rotation.StateRetiring:     "#c3bfe8",
	rotation.StateDone:         "#8fd19e",
	rotation.StateRollingBack:  "#efc3dc",
	rotation.StateRolledBack:   "#e3e6ea",
	rotation.StateStuck:        "#f3b6b1",
}

// begin returns the head of a picture.
func begin(width, height int, title, text string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="%s" role="img">
<title>%s</title>
<desc>%s</desc>
<rect width="100%%" height="100%%" rx="8" fill="%s"/>
`, width, height, ink, title, text, ground)
}

// words returns a text of several lines.
func words(x, y int, anchor, fill, text string) string {
	if text == "" {
		return ""
	}
	if anchor == "" {
		anchor = "start"
	}
	var b strings.Builder
	for i, line := range strings.Split(text, "|") {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="%s" font-size="12" fill="%s">%s</text>`+"\n", x, y+15*i, anchor, fill, line)
	}
	return b.String()
}

// statesPicture draws the table of states.
func statesPicture() string {
	var b strings.Builder
	b.WriteString(begin(904, rowOf(8)+84, "The states of a rotation", "From IDLE to DONE, and what happens when an answer is lost, when a rotation is rolled back, and when a person is needed."))
	fmt.Fprintf(&b, `<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="%s"/></marker>`+
		`<marker id="b" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="%s"/></marker></defs>`+"\n", ink, soft)
	for _, e := range edges {
		if e.path == "" {
			continue
		}
		colour, width, marker := ink, "2", "a"
		if e.faint {
			colour, width, marker = soft, "1.4", "b"
		}
		end := fmt.Sprintf(` marker-end="url(#%s)"`, marker)
		if e.from == rotation.StatePlanned && e.to == rotation.StateIdle || strings.HasSuffix(e.path, "H620") || e.from == rotation.StateConverging && e.to == rotation.StateRollingBack {
			end = "" // it joins another
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="%s"%s/>`+"\n", e.path, colour, width, end)
		b.WriteString(words(e.x, e.y, e.anchor, soft, e.label))
	}
	for _, line := range []struct {
		y    int
		text string
	}{
		{rowOf(1) + 39, "no way back from here on:|RicloudOverlap, AceDataInPlace"},
		{rowOf(6) + 39, "no way back from here on:|RicloudPaired, AceDataSwap"},
	} {
		fmt.Fprintf(&b, `<path d="M%d %d H%d" stroke="%s" stroke-width="1.6" stroke-dasharray="6 4"/>`+"\n", middle-boxWidth/2+20, line.y, 660, red)
		b.WriteString(words(668, line.y-3, "", red, line.text))
	}
	for _, s := range states {
		dash := ""
		if s.state == rotation.StateStuck {
			dash = ` stroke-dasharray="5 3"`
		}
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="7" fill="%s" stroke="%s"%s/>`, s.x-boxWidth/2, s.y-boxHeight/2, boxWidth, boxHeight, colours[s.state], soft, dash)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" font-size="14" font-weight="600">%s</text>`, s.x, s.y-4, s.state)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle" font-size="12">%s</text>`, s.x, s.y+14, s.text)
		if s.stuck {
			fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="4.5" fill="%s"/>`, s.x+boxWidth/2-11, s.y-boxHeight/2+11, red)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="4.5" fill="%s"/>`+"\n", right-boxWidth/2+5, rowOf(8)+38, red)
	b.WriteString(words(right-boxWidth/2+16, rowOf(8)+42, "", ink, "may become STUCK; Resume or|Rollback goes on where it was"))
	b.WriteString(words(24, rowOf(8)+42, "", ink, "Every state is on disk before the next thing happens.|DONE and ROLLED_BACK are where the next rotation begins, like IDLE.|From CONVERGING back to ISSUED: somebody else has rotated a single key."))
	b.WriteString("</svg>\n")
	return b.String()
}
