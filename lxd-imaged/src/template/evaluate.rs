//! Carries out a template's tree, counting every step.

use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;

use super::Context;
use super::document::{Condition, For, Node};
use super::error::{Fault, Kind};
use super::text;
use super::value::{Loop, Value};

/// The work that a template may still be.
#[derive(Debug)]
pub(super) struct Work {
    left: usize,
}

impl Work {
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Kind> {
        self.left = self.left.checked_sub(steps).ok_or(Kind::Limit(super::STEPS_LIMIT))?;
        Ok(())
    }

    /// For text of so many bytes that is made or looked through.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Kind> {
        if bytes > super::MAX_OUTPUT {
            return Err(Kind::Limit(super::OUTPUT_LIMIT));
        }
        self.spend(bytes / 16 + 1)
    }

    /// For a list of so many elements that is made.
    pub(super) fn list(&mut self, elements: usize) -> Result<(), Kind> {
        self.spend(elements.saturating_mul(4))
    }

    /// For an operation that may look at all of a value.
    pub(super) fn look(&mut self, value: &Value) -> Result<(), Kind> {
        match value {
            Value::Text(text) => self.text(text.len()),
            Value::List(list) => self.spend(list.len() + 1),
            _ => self.spend(1),
        }
    }
}

/// Renders what was parsed.
pub(super) fn evaluate(nodes: &[Node<'_>], context: &Context) -> Result<String, Fault> {
    let devices = context.devices.iter().map(|(name, device)| (name.clone(), Value::from(device)));
    let instance = Value::from(&context.instance);
    let names = BTreeMap::from([
        ("trigger".into(), context.trigger.as_str().into()),
        ("path".into(), context.path.as_str().into()),
        ("container".into(), instance.clone()),
        ("instance".into(), instance),
        ("config".into(), Value::from(&context.config)),
        ("devices".into(), Value::Map(Rc::new(devices.collect()))),
        ("properties".into(), Value::from(&context.properties)),
        ("config_get".into(), Value::ConfigGet),
    ]);
    let mut evaluator = Evaluator {
        config: &context.config,
        scopes: vec![names, BTreeMap::new()],
        output: String::new(),
        held_back: 0,
        autoescape: false,
        work: Work { left: super::MAX_STEPS },
    };
    evaluator.nodes(nodes)?;
    Ok(evaluator.output)
}

/// The state of a rendering.
pub(super) struct Evaluator<'c> {
    pub(super) config: &'c BTreeMap<String, String>,
    /// The last is the innermost.
    scopes: Vec<BTreeMap<String, Value>>,
    output: String,
    /// The length of outputs that wait while the body of a tag is rendered on its own.
    held_back: usize,
    autoescape: bool,
    pub(super) work: Work,
}

/// Gives what went wrong its place.
pub(super) fn at(offset: usize) -> impl Fn(Kind) -> Fault {
    move |kind| Fault { offset, kind }
}

impl Evaluator<'_> {
    fn nodes(&mut self, nodes: &[Node<'_>]) -> Result<(), Fault> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Node<'_>) -> Result<(), Fault> {
        match node {
            Node::Text { offset, text } => self.write(text, *offset)?,
            Node::Output { offset, value } => {
                let escape = self.autoescape && !value.is_safe();
                let value = self.expression(value, *offset)?;
                let escape = escape && matches!(value, Value::Text(_));
                self.write_value(&value, escape, *offset)?;
            }
            Node::If { offset, branches, otherwise } => {
                for (condition, body) in branches {
                    if self.holds(condition, *offset)? {
                        return self.nodes(body);
                    }
                }
                self.nodes(otherwise)?;
            }
            Node::For(node) => self.run_for(node)?,
            Node::Set { offset, name, value } => {
                let value = self.expression(value, *offset)?;
                self.set(name, value);
            }
            Node::With { offset, names, body } => {
                let mut scope = BTreeMap::new();
                for (name, value) in names {
                    scope.insert(name.clone(), self.expression(value, *offset)?);
                }
                self.scopes.push(scope);
                self.nodes(body)?;
                self.scopes.pop();
            }
            Node::Autoescape { on, body } => {
                let before = mem::replace(&mut self.autoescape, *on);
                self.nodes(body)?;
                self.autoescape = before;
            }
            Node::Filter { offset, filters, body } => {
                let text = self.rendered(body)?;
                let value = self.filtered(Value::from(text), filters)?;
                self.write_value(&value, false, *offset)?;
            }
            Node::Spaceless { offset, body } => {
                let text = self.rendered(body)?;
                self.write(&text::spaceless(&text), *offset)?;
            }
            Node::FirstOf { offset, values } => {
                for expression in values {
                    let value = self.expression(expression, *offset)?;
                    if value.is_true() {
                        let escape = self.autoescape && !expression.is_safe();
                        return self.write_value(&value, escape, *offset);
                    }
                }
            }
            Node::Block(body) => self.nodes(body)?,
        }
        Ok(())
    }

    fn write_value(&mut self, value: &Value, escape: bool, offset: usize) -> Result<(), Fault> {
        let text = value.text();
        if escape { self.write(&text::escaped(&text), offset) } else { self.write(&text, offset) }
    }

    fn write(&mut self, text: &str, offset: usize) -> Result<(), Fault> {
        let length = self.held_back + self.output.len() + text.len();
        if length > super::MAX_OUTPUT {
            return Err(Fault::limit(offset, super::OUTPUT_LIMIT));
        }
        self.work.text(text.len()).map_err(at(offset))?;
        self.output.push_str(text);
        Ok(())
    }

    /// What a body renders to, apart from the output.
    fn rendered(&mut self, body: &[Node<'_>]) -> Result<String, Fault> {
        let output = mem::take(&mut self.output);
        self.held_back += output.len();
        self.nodes(body)?;
        self.held_back -= output.len();
        Ok(mem::replace(&mut self.output, output))
    }

    fn holds(&mut self, condition: &Condition, offset: usize) -> Result<bool, Fault> {
        match condition {
            Condition::True(value) => Ok(self.expression(value, offset)?.is_true()),
            Condition::Same { left, right, wanted } => {
                let left = self.expression(left, offset)?;
                let right = self.expression(right, offset)?;
                self.work.look(&left).map_err(at(offset))?;
                Ok(left.equals(&right) == *wanted)
            }
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), value);
        }
    }

    pub(super) fn lookup(&self, name: &str) -> Value {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned().unwrap_or(Value::Nil)
    }

    fn run_for(&mut self, node: &For<'_>) -> Result<(), Fault> {
        let over = self.expression(&node.over, node.offset)?;
        let items = self.items(&over, node).map_err(at(node.offset))?;
        let parent = self.lookup("forloop");
        self.scopes.push(BTreeMap::new());
        for (index, (key, value)) in items.iter().enumerate() {
            self.work.spend(1).map_err(at(node.offset))?;
            let state = Loop { index, count: items.len(), parent: parent.clone() };
            self.set("forloop", Value::Loop(Rc::new(state)));
            self.set(&node.key, key.clone());
            if let (Some(name), Some(value)) = (&node.value, value) {
                self.set(name, value.clone());
            }
            self.nodes(&node.body)?;
        }
        if items.is_empty() {
            self.nodes(&node.empty)?;
        }
        self.scopes.pop();
        Ok(())
    }

    /// What a loop goes through: elements, characters, or keys with their values. Keys are always
    /// in order, so that the same configuration gives the same file.
    fn items(&mut self, over: &Value, node: &For<'_>) -> Result<Vec<(Value, Option<Value>)>, Kind> {
        self.work.look(over)?;
        self.work.list(over.length())?;
        let mut items: Vec<(Value, Option<Value>)> = match over {
            Value::List(list) => list.iter().map(|item| (item.clone(), None)).collect(),
            Value::Text(text) => text.chars().map(|c| (Value::character(c), None)).collect(),
            Value::Map(map) => map
                .iter()
                .map(|(key, value)| (Value::from(key.as_str()), Some(value.clone())))
                .collect(),
            _ => Vec::new(),
        };
        if node.sorted && !matches!(over, Value::Map(_)) {
            let bytes: usize = items.iter().map(|(item, _)| item.size()).sum();
            self.work.spend(items.len().saturating_mul(16).saturating_add(bytes / 2))?;
            items.sort_by(|(a, _), (b, _)| a.order(b));
        }
        if node.reversed {
            items.reverse();
        }
        Ok(items)
    }
}
