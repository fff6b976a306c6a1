//! Expressions: what they consist of and how they are read from tokens.

use std::rc::Rc;

use super::error::Fault;
use super::filters::Filter;
use super::lexer::{Spot, Token, Tokens, excerpt};

/// An expression with the operators of one level each; chains are flat, so that only brackets
/// nest.
#[derive(Debug)]
pub(super) enum Expression {
    /// `a and b or c`: without precedence, the first operand decides about all the others.
    Logic {
        first: Box<Expression>,
        rest: Vec<(Logic, Expression)>,
    },
    /// `a == b == c` means `a == (b == c)`.
    Relation {
        first: Box<Expression>,
        rest: Vec<(Relation, Expression)>,
    },
    /// `not a + b`: sign and `not` belong to the first operand.
    Sum {
        minus: Option<usize>,
        not: bool,
        first: Box<Expression>,
        rest: Vec<(Sum, Expression)>,
    },
    Product {
        first: Box<Expression>,
        rest: Vec<(Product, usize, Expression)>,
    },
    /// `a ^ b ^ c` means `a ^ (b ^ c)`.
    Power {
        first: Box<Expression>,
        rest: Vec<Expression>,
    },
    /// A value and what is done with it one after the other.
    Filtered {
        base: Operand,
        filters: Vec<Call>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Sum {
    Plus,
    Minus,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Product {
    Times,
    By,
    Modulo,
}

/// A literal or a name with what follows it.
#[derive(Debug)]
pub(super) enum Operand {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    Path { offset: usize, name: String, steps: Vec<Step> },
}

/// A step from a value to one inside of it.
#[derive(Debug)]
pub(super) enum Step {
    /// `.name`
    Field(String),
    /// `.0`
    Index(usize),
    /// `[expression]`
    Subscript(Expression),
    /// `(a, b)`
    Call(Vec<Expression>),
}

/// `|filter:parameter`
#[derive(Debug)]
pub(super) struct Call {
    pub(super) offset: usize,
    pub(super) filter: Filter,
    pub(super) parameter: Option<Operand>,
}

impl Expression {
    /// Whether its value is to be written as it is even where texts are escaped.
    pub(super) fn is_safe(&self) -> bool {
        matches!(self, Self::Filtered { filters, .. }
            if filters.iter().any(|call| call.filter.is_safe()))
    }
}

/// Words that are no names.
const KEYWORDS: [&str; 8] = ["in", "and", "or", "not", "true", "false", "as", "export"];

/// Reads the tokens of one part of a template.
#[derive(Debug)]
pub(super) struct Reader<'t, 'a> {
    list: &'t [Spot<'a>],
    at: usize,
    end: usize,
    closing: &'static str,
    depth: usize,
}

impl<'t, 'a> Reader<'t, 'a> {
    pub(super) fn new(tokens: &'t Tokens<'a>, closing: &'static str) -> Self {
        Self { list: &tokens.list, at: 0, end: tokens.end, closing, depth: 0 }
    }

    fn peek(&self) -> Option<&'t Token<'a>> {
        self.list.get(self.at).map(|spot| &spot.token)
    }

    /// Where the next token is, or the end.
    pub(super) fn offset(&self) -> usize {
        self.list.get(self.at).map_or(self.end, |spot| spot.offset)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.list.len()
    }

    /// Whether `as` is among the tokens that are left.
    pub(super) fn has_as(&self) -> bool {
        self.list[self.at..].iter().any(|spot| spot.token == Token::Name("as"))
    }

    pub(super) fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol);
        self.at += usize::from(found);
        found
    }

    /// A keyword, or a word that is one in its place only.
    pub(super) fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(next)) if *next == word);
        self.at += usize::from(found);
        found
    }

    fn any<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        let (Token::Name(word) | Token::Symbol(word)) = self.peek()? else { return None };
        let found = table.iter().find(|(name, _)| name == word).map(|(_, found)| *found);
        self.at += usize::from(found.is_some());
        found
    }

    /// A name, which is no keyword.
    pub(super) fn name(&mut self, what: &str) -> Result<&'a str, Fault> {
        match self.peek() {
            Some(Token::Name(name)) if !KEYWORDS.contains(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.expected(&format!("`{symbol}`"))) }
    }

    pub(super) fn expect_end(&self) -> Result<(), Fault> {
        if self.is_at_end() { Ok(()) } else { Err(self.expected(&format!("`{}`", self.closing))) }
    }

    /// The error for a place where `what` should be.
    pub(super) fn expected(&self, what: &str) -> Fault {
        let found = match self.peek() {
            Some(token) => token.describe(),
            None => format!("`{}`", self.closing),
        };
        Fault::syntax(self.offset(), format!("expected {what}, found {found}"))
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Result<Expression, Fault> {
        const OPERATORS: [(&str, Logic); 4] =
            [("and", Logic::And), ("&&", Logic::And), ("or", Logic::Or), ("||", Logic::Or)];
        if self.depth >= super::MAX_EXPRESSION_DEPTH {
            return Err(Fault::limit(self.offset(), super::EXPRESSION_LIMIT));
        }
        self.depth += 1;
        let first = self.relation()?;
        let mut rest = Vec::new();
        while let Some(operator) = self.any(&OPERATORS) {
            rest.push((operator, self.relation()?));
        }
        self.depth -= 1;
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Logic { first: Box::new(first), rest })
    }

    fn relation(&mut self) -> Result<Expression, Fault> {
        const OPERATORS: [(&str, Relation); 8] = [
            ("==", Relation::Equal),
            ("!=", Relation::Unequal),
            ("<>", Relation::Unequal),
            ("<=", Relation::LessOrEqual),
            (">=", Relation::GreaterOrEqual),
            ("<", Relation::Less),
            (">", Relation::Greater),
            ("in", Relation::In),
        ];
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(operator) = self.any(&OPERATORS) {
            rest.push((operator, self.sum()?));
            if matches!(operator, Relation::In) {
                break;
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Relation { first: Box::new(first), rest })
    }

    fn sum(&mut self) -> Result<Expression, Fault> {
        const OPERATORS: [(&str, Sum); 2] = [("+", Sum::Plus), ("-", Sum::Minus)];
        let offset = self.offset();
        let minus = match self.any(&OPERATORS) {
            Some(Sum::Minus) => Some(offset),
            _ => None,
        };
        let not = self.symbol("!") || self.word("not");
        let first = self.product()?;
        let mut rest = Vec::new();
        while let Some(operator) = self.any(&OPERATORS) {
            rest.push((operator, self.product()?));
        }
        if minus.is_none() && !not && rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Sum { minus, not, first: Box::new(first), rest })
    }

    fn product(&mut self) -> Result<Expression, Fault> {
        const OPERATORS: [(&str, Product); 3] =
            [("*", Product::Times), ("/", Product::By), ("%", Product::Modulo)];
        let first = self.power()?;
        let mut rest = Vec::new();
        loop {
            let offset = self.offset();
            let Some(operator) = self.any(&OPERATORS) else { break };
            rest.push((operator, offset, self.power()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Product { first: Box::new(first), rest })
    }

    fn power(&mut self) -> Result<Expression, Fault> {
        let first = self.factor()?;
        let mut rest = Vec::new();
        while self.symbol("^") {
            rest.push(self.factor()?);
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Power { first: Box::new(first), rest })
    }

    fn factor(&mut self) -> Result<Expression, Fault> {
        if self.symbol("(") {
            let inner = self.expression()?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        let base = self.operand()?;
        let filters = self.filters()?;
        Ok(Expression::Filtered { base, filters })
    }

    /// `|filter:parameter|filter…`
    fn filters(&mut self) -> Result<Vec<Call>, Fault> {
        let mut filters = Vec::new();
        while self.symbol("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    /// `filter:parameter`
    pub(super) fn filter(&mut self) -> Result<Call, Fault> {
        let offset = self.offset();
        let name = self.name("the name of a filter")?;
        let filter = Filter::named(name, offset)?;
        let parameter = if self.symbol(":") { Some(self.operand()?) } else { None };
        Ok(Call { offset, filter, parameter })
    }

    /// A literal, or a name and the way from there. A parameter of a filter is one too.
    fn operand(&mut self) -> Result<Operand, Fault> {
        let offset = self.offset();
        match self.peek() {
            Some(Token::Text(text)) => {
                self.at += 1;
                Ok(Operand::Text(text.as_str().into()))
            }
            Some(Token::Digits(digits)) => {
                self.at += 1;
                self.number(digits, offset)
            }
            Some(Token::Name(word @ ("true" | "false"))) => {
                self.at += 1;
                Ok(Operand::Bool(*word == "true"))
            }
            _ => {
                let name = self.name("a value (a name, a string or a number)")?.to_owned();
                let steps = self.steps()?;
                Ok(Operand::Path { offset, name, steps })
            }
        }
    }

    fn number(&mut self, digits: &str, offset: usize) -> Result<Operand, Fault> {
        let unreadable = || Fault::syntax(offset, format!("{} is too large", excerpt(digits)));
        if !self.symbol(".") {
            return digits.parse().map(Operand::Int).map_err(|_| unreadable());
        }
        let Some(Token::Digits(decimals)) = self.peek() else {
            return Err(self.expected("digits after the point"));
        };
        self.at += 1;
        format!("{digits}.{decimals}").parse().map(Operand::Float).map_err(|_| unreadable())
    }

    fn steps(&mut self) -> Result<Vec<Step>, Fault> {
        let mut steps = Vec::new();
        loop {
            if self.symbol(".") {
                steps.push(self.member()?);
            } else if self.symbol("[") {
                steps.push(Step::Subscript(self.expression()?));
                self.expect_symbol("]")?;
            } else if self.symbol("(") {
                steps.push(Step::Call(self.arguments()?));
            } else {
                return Ok(steps);
            }
        }
    }

    fn member(&mut self) -> Result<Step, Fault> {
        if let Some(Token::Digits(digits)) = self.peek() {
            let index = digits
                .parse()
                .map_err(|_| Fault::syntax(self.offset(), "this index is too large"))?;
            self.at += 1;
            return Ok(Step::Index(index));
        }
        Ok(Step::Field(self.name("a name or a number after `.`")?.to_owned()))
    }

    fn arguments(&mut self) -> Result<Vec<Expression>, Fault> {
        let mut arguments = Vec::new();
        while !self.symbol(")") {
            arguments.push(self.expression()?);
            if self.symbol(")") {
                break;
            }
            if !self.symbol(",") {
                return Err(self.expected("`,` or `)`"));
            }
        }
        Ok(arguments)
    }
}
