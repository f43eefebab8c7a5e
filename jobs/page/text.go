package page

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Lengths of texts, in characters.
const (
	lengthName  = 60     // a name where there are others
	lengthLine  = 160    // a sentence in the overview
	lengthTitle = 100    // the title of a page
	lengthText  = 2000   // one of many on a key's own page
	lengthWhole = 20_000 // one of few there
	lengthQuery = 200    // what is searched for
)

// maxMarks is how many accents may stand on one letter: any number would cover
// the lines above and below.
const maxMarks = 3

// clean makes a text of somebody else's fit to be shown on one line: what
// breaks lines is a space, what cannot be seen, or turns the text around, is
// U+FFFD. It is cut after so many characters.
func clean(text string, most int) string {
	var b strings.Builder
	b.Grow(min(len(text), most))
	n, marks := 0, 0
	for i, r := range text { // broken UTF-8 comes as U+FFFD
		if n == most {
			if strings.TrimSpace(text[i:]) != "" {
				b.WriteString("…")
			}
			break
		}
		marks++
		switch {
		case r == '\t' || r == '\n' || r == '\r' || unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp):
			r, marks = ' ', 0
		case hidden(r):
			r, marks = utf8.RuneError, 0
		case !unicode.In(r, unicode.Mn, unicode.Me):
			marks = 0
		case marks > maxMarks:
			continue
		}
		b.WriteRune(r)
		n++
	}
	return strings.TrimSpace(b.String())
}

// hidden reports whether a character has no picture of its own.
func hidden(r rune) bool {
	switch r {
	case '\u115F', '\u1160', '\u3164', '\uFFA0', '\u2800', '\u034F', '\u17B4', '\u17B5':
		return true // letters, a pattern and marks that are blank
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Variation_Selector) || r&0xFFFE == 0xFFFE
}
