//! Tags: the tree of a template, and how it is read from pieces.

use super::error::Fault;
use super::expression::{Call, Expression, Reader};
use super::lexer::{Piece, Spot, Token, Tokens};

/// A part of a template with what is inside of it.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Text {
        offset: usize,
        text: &'a str,
    },
    Output {
        offset: usize,
        value: Expression,
    },
    /// `if`, `ifequal` and `ifnotequal`: the first branch whose condition holds.
    If {
        offset: usize,
        branches: Vec<(Condition, Vec<Node<'a>>)>,
        otherwise: Vec<Node<'a>>,
    },
    For(Box<For<'a>>),
    Set {
        offset: usize,
        name: String,
        value: Expression,
    },
    With {
        offset: usize,
        names: Vec<(String, Expression)>,
        body: Vec<Node<'a>>,
    },
    Autoescape {
        on: bool,
        body: Vec<Node<'a>>,
    },
    /// `filter`: the text of the body goes through filters.
    Filter {
        offset: usize,
        filters: Vec<Call>,
        body: Vec<Node<'a>>,
    },
    /// `spaceless`
    Spaceless {
        offset: usize,
        body: Vec<Node<'a>>,
    },
    /// `firstof`: the first of the values that is true.
    FirstOf {
        offset: usize,
        values: Vec<Expression>,
    },
    /// `block`, which only means something to templates that extend this one.
    Block(Vec<Node<'a>>),
}

#[derive(Debug)]
pub(super) enum Condition {
    True(Expression),
    Same { left: Expression, right: Expression, wanted: bool },
}

#[derive(Debug)]
pub(super) struct For<'a> {
    pub(super) offset: usize,
    pub(super) key: String,
    /// Only of a map.
    pub(super) value: Option<String>,
    pub(super) over: Expression,
    pub(super) reversed: bool,
    pub(super) sorted: bool,
    pub(super) body: Vec<Node<'a>>,
    pub(super) empty: Vec<Node<'a>>,
}

/// Tags that read files, on which images have no claim (CVE-2026-33897).
const FILE_TAGS: [&str; 5] = ["include", "import", "extends", "ssi", "exec"];
const FILES: &str = "templates of images can't read other files; put its text into the template";

/// Tags whose result depends on more than the instance, or that no image was seen to use.
const OTHER_TAGS: [&str; 6] = ["now", "lorem", "cycle", "ifchanged", "macro", "widthratio"];
const UNSUPPORTED: &str = "this tag of pongo2 is not carried out; use set, if, for and with";

const NO_TAG: &str = "a tag: if, for, set, with, comment, ifequal, ifnotequal, autoescape, \
     verbatim, filter, firstof, spaceless, block or templatetag";

/// Reads a whole template.
pub(super) fn parse<'a>(pieces: &'a [Piece<'a>]) -> Result<Vec<Node<'a>>, Fault> {
    let mut parser = Parser { pieces: pieces.iter(), depth: 0 };
    let (nodes, _) = parser.body(None)?;
    Ok(nodes)
}

struct Parser<'a> {
    pieces: std::slice::Iter<'a, Piece<'a>>,
    depth: usize,
}

/// What ends a body: the tag's name, and its arguments.
type End<'a> = (&'a str, Reader<'a, 'a>);

impl<'a> Parser<'a> {
    /// What is inside of the tag `opened` at an offset, up to one of `ends`.
    fn until(&mut self, opened: usize, ends: &[&str]) -> Result<(Vec<Node<'a>>, End<'a>), Fault> {
        if self.depth >= super::MAX_NESTING {
            return Err(Fault::limit(opened, super::NESTING_LIMIT));
        }
        self.depth += 1;
        let (nodes, end) = self.body(Some(ends))?;
        self.depth -= 1;
        let Some(end) = end else {
            let names = ends.iter().map(|end| format!("`{{% {end} %}}`")).collect::<Vec<_>>();
            let names = names.join(" or ");
            return Err(Fault::syntax(opened, format!("expected {names} further down")));
        };
        Ok((nodes, end))
    }

    /// As [`Self::until`], for a tag with one end that takes no arguments.
    fn closed(&mut self, opened: usize, end: &str) -> Result<Vec<Node<'a>>, Fault> {
        let (nodes, (_, rest)) = self.until(opened, &[end])?;
        rest.expect_end()?;
        Ok(nodes)
    }

    fn body(&mut self, ends: Option<&[&str]>) -> Result<(Vec<Node<'a>>, Option<End<'a>>), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            match piece {
                Piece::Text { offset, text } => nodes.push(Node::Text { offset: *offset, text }),
                Piece::Output(tokens) => {
                    let mut reader = Reader::new(tokens, "}}");
                    let value = reader.expression()?;
                    reader.expect_end()?;
                    nodes.push(Node::Output { offset: tokens.start, value });
                }
                Piece::Tag(tokens) => {
                    let (name, reader) = tag_name(tokens)?;
                    if ends.is_some_and(|ends| ends.contains(&name)) {
                        return Ok((nodes, Some((name, reader))));
                    }
                    nodes.push(self.tag(name, tokens, reader)?);
                }
            }
        }
        Ok((nodes, None))
    }

    fn tag(
        &mut self,
        name: &str,
        tokens: &Tokens<'a>,
        mut reader: Reader<'a, 'a>,
    ) -> Result<Node<'a>, Fault> {
        let offset = tokens.start;
        match name {
            "if" => self.tag_if(offset, reader),
            "ifequal" | "ifnotequal" => self.tag_ifequal(name, offset, reader),
            "for" => self.tag_for(offset, reader),
            "with" => self.tag_with(offset, reader),
            "set" => {
                let name = reader.name("the name to set")?.to_owned();
                reader.expect_symbol("=")?;
                let value = reader.expression()?;
                reader.expect_end()?;
                Ok(Node::Set { offset, name, value })
            }
            "autoescape" => {
                let on = reader.word("on");
                if !on && !reader.word("off") {
                    return Err(reader.expected("`on` or `off`"));
                }
                reader.expect_end()?;
                Ok(Node::Autoescape { on, body: self.closed(offset, "endautoescape")? })
            }
            "filter" => {
                let mut filters = vec![reader.filter()?];
                while reader.symbol("|") {
                    filters.push(reader.filter()?);
                }
                reader.expect_end()?;
                Ok(Node::Filter { offset, filters, body: self.closed(offset, "endfilter")? })
            }
            "spaceless" => {
                reader.expect_end()?;
                Ok(Node::Spaceless { offset, body: self.closed(offset, "endspaceless")? })
            }
            "firstof" => {
                let mut values = Vec::new();
                while !reader.is_at_end() {
                    values.push(reader.expression()?);
                }
                Ok(Node::FirstOf { offset, values })
            }
            "block" => self.tag_block(offset, reader),
            "templatetag" => templatetag(offset, reader),
            _ if FILE_TAGS.contains(&name) => Err(Fault::refused(offset, name, FILES)),
            _ if OTHER_TAGS.contains(&name) => Err(Fault::refused(offset, name, UNSUPPORTED)),
            _ => {
                let word = Token::Name(name).describe();
                Err(Fault::syntax(offset, format!("expected {NO_TAG}; found {word}")))
            }
        }
    }

    fn tag_if(&mut self, offset: usize, mut reader: Reader<'a, 'a>) -> Result<Node<'a>, Fault> {
        let mut branches = Vec::new();
        loop {
            let condition = Condition::True(reader.expression()?);
            reader.expect_end()?;
            let (body, (end, rest)) = self.until(offset, &["elif", "else", "endif"])?;
            branches.push((condition, body));
            if end == "elif" {
                reader = rest;
                continue;
            }
            rest.expect_end()?;
            let otherwise = if end == "else" { self.closed(offset, "endif")? } else { Vec::new() };
            return Ok(Node::If { offset, branches, otherwise });
        }
    }

    fn tag_ifequal(
        &mut self,
        name: &str,
        offset: usize,
        mut reader: Reader<'a, 'a>,
    ) -> Result<Node<'a>, Fault> {
        let (wanted, last) =
            if name == "ifequal" { (true, "endifequal") } else { (false, "endifnotequal") };
        let left = reader.expression()?;
        let right = reader.expression()?;
        reader.expect_end()?;
        let (body, (end, rest)) = self.until(offset, &["else", last])?;
        rest.expect_end()?;
        let otherwise = if end == "else" { self.closed(offset, last)? } else { Vec::new() };
        let branches = vec![(Condition::Same { left, right, wanted }, body)];
        Ok(Node::If { offset, branches, otherwise })
    }

    fn tag_for(&mut self, offset: usize, mut reader: Reader<'a, 'a>) -> Result<Node<'a>, Fault> {
        let key = reader.name("a name for the elements")?.to_owned();
        let value = if reader.symbol(",") {
            Some(reader.name("a name for the values")?.to_owned())
        } else {
            None
        };
        if !reader.word("in") {
            return Err(reader.expected("`in`"));
        }
        let over = reader.expression()?;
        let mut reversed = reader.word("reversed");
        let sorted = reader.word("sorted");
        reversed |= reader.word("reversed");
        reader.expect_end()?;
        let (body, (end, rest)) = self.until(offset, &["empty", "endfor"])?;
        rest.expect_end()?;
        let empty = if end == "empty" { self.closed(offset, "endfor")? } else { Vec::new() };
        let node = For { offset, key, value, over, reversed, sorted, body, empty };
        Ok(Node::For(Box::new(node)))
    }

    /// `{% with a=1 b=2 %}` or `{% with 1 as a %}`.
    fn tag_with(&mut self, offset: usize, mut reader: Reader<'a, 'a>) -> Result<Node<'a>, Fault> {
        let value_first = reader.has_as();
        let mut names = Vec::new();
        while names.is_empty() || !reader.is_at_end() {
            if value_first {
                let value = reader.expression()?;
                if !reader.word("as") {
                    return Err(reader.expected("`as`"));
                }
                names.push((reader.name("a name for the value")?.to_owned(), value));
            } else {
                let name = reader.name("the name to set")?.to_owned();
                reader.expect_symbol("=")?;
                names.push((name, reader.expression()?));
            }
        }
        Ok(Node::With { offset, names, body: self.closed(offset, "endwith")? })
    }

    fn tag_block(&mut self, offset: usize, mut reader: Reader<'a, 'a>) -> Result<Node<'a>, Fault> {
        let name = reader.name("the name of the block")?;
        reader.expect_end()?;
        let (body, (_, mut rest)) = self.until(offset, &["endblock"])?;
        if !rest.is_at_end() && !rest.word(name) {
            return Err(rest.expected(&format!("`{name}`")));
        }
        rest.expect_end()?;
        Ok(Node::Block(body))
    }
}

fn tag_name<'a>(tokens: &'a Tokens<'a>) -> Result<(&'a str, Reader<'a, 'a>), Fault> {
    let mut reader = Reader::new(tokens, "%}");
    match tokens.list.first() {
        Some(Spot { token: Token::Name(name), .. }) => {
            let name: &'a str = name;
            reader.word(name);
            Ok((name, reader))
        }
        _ => Err(reader.expected("the name of a tag")),
    }
}

/// Writes delimiters of the language.
fn templatetag<'a>(offset: usize, mut reader: Reader<'a, 'a>) -> Result<Node<'a>, Fault> {
    const TEXTS: [(&str, &str); 8] = [
        ("openblock", "{%"),
        ("closeblock", "%}"),
        ("openvariable", "{{"),
        ("closevariable", "}}"),
        ("openbrace", "{"),
        ("closebrace", "}"),
        ("opencomment", "{#"),
        ("closecomment", "#}"),
    ];
    let text = TEXTS.iter().find(|(name, _)| reader.word(name)).map(|(_, text)| *text);
    let Some(text) = text else {
        let names = TEXTS.map(|(name, _)| name).join(", ");
        return Err(reader.expected(&format!("one of {names}")));
    };
    reader.expect_end()?;
    Ok(Node::Text { offset, text })
}
